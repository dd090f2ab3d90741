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

static const struct
{
	char		letter;
	Oid			type;
}			letters[] = {
	{'b', BOOLOID}, {'i', INT4OID}, {'l', INT8OID}, {'t', TEXTOID}, {'u', UUIDOID}, {'z', TIMESTAMPTZOID}, {'j', JSONBOID},
	{'v', INTERVALOID}, {'f', FLOAT8OID}, {'a', TEXTARRAYOID}
};

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
		bool		known = false;

		for (int k = 0; k < lengthof(letters); k++)
			known |= (letters[k].letter == columns[i] && letters[k].type == att->atttypid);
		fits = known && !att->attisdropped;
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

	InitMaterializedSRF(fcinfo, 0);
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
