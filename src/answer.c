/*-------------------------------------------------------------------------
 *
 * answer.c
 *	  Answers of functions that return a set of a named type.
 *
 * Such a function fills values by the columns that it knows.  After an update
 * of the extension an old library may meet a changed type; every answer is
 * therefore checked against the type before a value is put into it.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "catalog/pg_type.h"
#include "utils/tuplestore.h"

static Oid
type_of(char letter)
{
	switch (letter)
	{
		case 'b':
			return BOOLOID;
		case 'i':
			return INT4OID;
		case 'l':
			return INT8OID;
		case 't':
			return TEXTOID;
		case 'u':
			return UUIDOID;
		case 'z':
			return TIMESTAMPTZOID;
		case 'j':
			return JSONBOID;
		case 'v':
			return INTERVALOID;
		case 'f':
			return FLOAT8OID;
		case 'a':
			return TEXTARRAYOID;
	}
	return InvalidOid;
}

/*
 * The columns of a type are those that "columns" spells, a letter each.  One
 * that has been changed since is refused, or values would be read as what they
 * are not.
 */
void
hf_answer_check(TupleDesc desc, const char *columns)
{
	bool		fits = (desc->natts == strlen(columns));

	for (int i = 0; fits && i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);

		fits = att->atttypid == type_of(columns[i]) && !att->attisdropped;
	}
	if (!fits)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("reconnect: library older than schema"),
				 errdetail("A type that this function returns or takes is not the one that the library knows."),
				 errhint("Reconnect, to load the library of the installed version.")));
}

/* Begin the answer of a function that returns a set of a named type. */
ReturnSetInfo *
hf_answer_begin(FunctionCallInfo fcinfo, const char *columns)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	/* what the caller expects is the function's type, and at hand */
	InitMaterializedSRF(fcinfo, rsinfo != NULL && IsA(rsinfo, ReturnSetInfo) && rsinfo->expectedDesc != NULL ? MAT_SRF_USE_EXPECTED_DESC : 0);
	hf_answer_check(rsinfo->setDesc, columns);
	return rsinfo;
}

/* The one row of such a function. */
Datum
hf_answer_row(FunctionCallInfo fcinfo, const char *columns, Datum *values, bool *nulls)
{
	ReturnSetInfo *rsinfo = hf_answer_begin(fcinfo, columns);

	tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	return (Datum) 0;
}
