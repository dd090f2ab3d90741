/*-------------------------------------------------------------------------
 *
 * tuple.c
 *	  Rows as the heap stores them, formed in one pass.
 *
 * heap_form_tuple() goes over the columns twice and looks each one up in the
 * table's descriptor.  A job's attempt forms five rows of up to forty columns,
 * so this is done here instead, from what the shape of a table keeps of its
 * columns.  The result is the same, byte for byte, which a server with
 * assertions checks for every row.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/htup_details.h"
#include "access/tupmacs.h"

/* How the columns of a table lie in its rows, in the current memory context.  None is a cstring, which no table can have. */
void
hf_columns_build(HfShape *shape)
{
	TupleDesc	desc = shape->desc;

	shape->columns = palloc0(sizeof(HfColumn) * desc->natts);
	shape->fixed_room = 0;
	for (int i = 0; i < desc->natts; i++)
	{
		Form_pg_attribute att = TupleDescAttr(desc, i);
		HfColumn   *column = &shape->columns[i];

		column->len = att->attlen;
		column->byval = att->attbyval;
		column->packable = (att->attstorage != TYPSTORAGE_PLAIN);
		column->align = att->attalign == TYPALIGN_DOUBLE ? ALIGNOF_DOUBLE : att->attalign == TYPALIGN_INT ? ALIGNOF_INT :
			att->attalign == TYPALIGN_SHORT ? ALIGNOF_SHORT : 1;
		shape->fixed_room += column->align - 1 + Max(column->len, 0);
	}
}

/* Room for all that is not null, alignment included; 0: a value lies out of line. */
static Size
data_room(const HfShape *shape, const Datum *values, const bool *nulls)
{
	Size		room = shape->fixed_room;

	for (int i = 0; i < shape->desc->natts; i++)
	{
		const char *value = DatumGetPointer(values[i]);

		if (nulls[i] || shape->columns[i].len >= 0)
			continue;
		if (VARATT_IS_EXTERNAL(value))
			return 0;
		room += VARSIZE_ANY(value);
	}
	return room;
}

/* One value that is not null, at "data", which is not aligned for it yet: where the next one goes. */
static inline char *
put_value(char *data, const HfColumn *column, Datum datum)
{
	const char *value = DatumGetPointer(datum);
	Size		len;

	if (column->len == -1 && VARATT_IS_SHORT(value))
	{
		len = VARSIZE_SHORT(value);
		memcpy(data, value, len);
		return data + len;
	}
	if (column->len == -1 && column->packable && VARATT_CAN_MAKE_SHORT(value))
	{
		len = VARATT_CONVERTED_SHORT_SIZE(value);
		SET_VARSIZE_SHORT(data, len);
		memcpy(data + 1, VARDATA(value), len - 1);
		return data + len;
	}
	data = (char *) TYPEALIGN(column->align, data);
	if (column->byval)
	{
		store_att_byval(data, datum, column->len);
		return data + column->len;
	}
	len = column->len == -1 ? VARSIZE(value) : column->len;
	memcpy(data, value, len);
	return data + len;
}

static HeapTuple
form(const HfShape *shape, const Datum *values, const bool *nulls, Size room)
{
	int			natts = shape->desc->natts;
	bool		has_nulls = memchr(nulls, true, natts) != NULL;
	Size		hoff = MAXALIGN(SizeofHeapTupleHeader + (has_nulls ? BITMAPLEN(natts) : 0));
	HeapTuple	tuple = palloc0(HEAPTUPLESIZE + hoff + room);
	HeapTupleHeader header = (HeapTupleHeader) ((char *) tuple + HEAPTUPLESIZE);
	char	   *data = (char *) header + hoff;

	for (int i = 0; i < natts; i++)
	{
		if (nulls[i])
			continue;
		if (has_nulls)
			header->t_bits[i >> 3] |= 1 << (i & 7);
		if (shape->columns[i].len == -1)
			header->t_infomask |= HEAP_HASVARWIDTH;
		data = put_value(data, &shape->columns[i], values[i]);
	}
	if (has_nulls)
		header->t_infomask |= HEAP_HASNULL;
	tuple->t_data = header;
	tuple->t_len = data - (char *) header;
	ItemPointerSetInvalid(&tuple->t_self);
	tuple->t_tableOid = InvalidOid;
	ItemPointerSetInvalid(&header->t_ctid);
	HeapTupleHeaderSetNatts(header, natts);
	header->t_hoff = hoff;
	return tuple;
}

#ifdef USE_ASSERT_CHECKING
static bool
is_what_the_server_forms(HeapTuple tuple, TupleDesc desc, Datum *values, bool *nulls)
{
	HeapTuple	other = heap_form_tuple(desc, values, nulls);
	Size		from = offsetof(HeapTupleHeaderData, t_ctid);	/* what comes before is the transaction's */

	return tuple->t_len == other->t_len && memcmp((char *) tuple->t_data + from, (char *) other->t_data + from, tuple->t_len - from) == 0;
}
#endif

/* The row of these values, by attribute, in the current memory context. */
HeapTuple
hf_form_tuple(const HfShape *shape, Datum *values, bool *nulls)
{
	Size		room = data_room(shape, values, nulls);
	HeapTuple	tuple;

	if (room == 0)
		return heap_form_tuple(shape->desc, values, nulls);
	tuple = form(shape, values, nulls, room);
	Assert(is_what_the_server_forms(tuple, shape->desc, values, nulls));
	return tuple;
}
