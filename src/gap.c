/*-------------------------------------------------------------------------
 *
 * gap.c
 *	  Priorities without an entry: what a claim need not look for again.
 *
 * Each claim must know whether a more urgent job has come since the last one,
 * or one to reconcile.  Mostly none has, and the answer is a gap in the
 * dispatch index that lies within one of its pages.  The page is remembered
 * with its LSN: while that stands the page is as it was, and so is the stretch
 * of keys that it answers for, since a split or the deletion of a neighbour
 * writes the page too.  One look at the page's header takes the place of a
 * descent from the root.
 *
 *-------------------------------------------------------------------------
 */
#include "holdfast.h"

#include "access/nbtree.h"

typedef struct Gap
{
	HfRelFileNumber file;		/* of the index; 0: nothing is remembered */
	int32		queue_id;
	bool		reconcile;
	int32		above;			/* the priorities between, both exclusive */
	int32		below;
	BlockNumber block;
	XLogRecPtr	lsn;
} Gap;

static Gap gaps[64];

static Gap *
gap_for(int32 queue_id, bool reconcile, int32 above, int32 below)
{
	uint32		hash = (uint32) queue_id * 31 + reconcile;

	return &gaps[(hash * 31 + (uint32) above * 7 + (uint32) below) % lengthof(gaps)];
}

/* Whether a page of the index is as it was when it had this LSN. */
bool
hf_page_stands(Relation index, BlockNumber block, XLogRecPtr lsn)
{
	Buffer		buffer = _bt_getbuf(index, block, BT_READ);
	bool		stands = (PageGetLSN(BufferGetPage(buffer)) == lsn);

	_bt_relbuf(index, buffer);
	return stands;
}

/* The leaf page where the entries of a higher priority than "above" would begin, locked; and where on it. */
static Buffer
find_page(HfTable *table, Relation index, const Gap *gap, OffsetNumber *at)
{
	Datum		values[5] = {Int32GetDatum(gap->queue_id), hf_word(gap->reconcile ? "reconcile" : "execute"),
							 Int32GetDatum(gap->above), TimestampTzGetDatum(0), Int64GetDatum(0)};
	bool		isnull[5] = {false};
	BTScanInsert key = _bt_mkscankey(index, index_form_tuple(RelationGetDescr(index), values, isnull));
	Buffer		buffer;
	Page		page;
	OffsetNumber high;

	key->keysz = 3;
	key->scantid = NULL;
	key->nextkey = true;
	hf_bt_search(table->rel, index, key, &buffer);
	if (!BufferIsValid(buffer))
		return buffer;
	page = BufferGetPage(buffer);
	*at = P_FIRSTDATAKEY((BTPageOpaque) PageGetSpecialPointer(page));
	high = PageGetMaxOffsetNumber(page);
	while (*at <= high)
	{
		OffsetNumber middle = *at + (high - *at) / 2;

		if (_bt_compare(index, key, page, middle) >= 0)
			*at = middle + 1;
		else
			high = middle - 1;
	}
	return buffer;
}

/* Whether the page's entry at "at", the first beyond "above", lies beyond the gap. */
static bool
ends_there(Relation index, const Gap *gap, Page page, OffsetNumber at)
{
	TupleDesc	desc = RelationGetDescr(index);
	IndexTuple	entry;
	bool		isnull;

	if (at > PageGetMaxOffsetNumber(page))
		return P_RIGHTMOST((BTPageOpaque) PageGetSpecialPointer(page));
	entry = (IndexTuple) PageGetItem(page, PageGetItemId(page, at));
	return DatumGetInt32(index_getattr(entry, 1, desc, &isnull)) != gap->queue_id ||
		!hf_text_is(index_getattr(entry, 2, desc, &isnull), gap->reconcile ? "reconcile" : "execute") ||
		DatumGetInt32(index_getattr(entry, 3, desc, &isnull)) >= gap->below;
}

/*
 * Whether the dispatch index has no entry of this queue and mode with a
 * priority between "above" and "below", both exclusive.  false: it may have
 * one, look.
 */
bool
hf_gap_empty(HfTable *table, Relation index, int32 queue_id, bool reconcile, int32 above, int32 below)
{
	Gap		   *known = gap_for(queue_id, reconcile, above, below);
	Gap			gap = {hf_relfilenumber(index), queue_id, reconcile, above, below, InvalidBlockNumber, InvalidXLogRecPtr};
	Buffer		buffer;
	OffsetNumber at;
	bool		empty;

	if (!RelationNeedsWAL(index))
		return false;			/* its pages change without an LSN */
	if (known->file == gap.file && known->queue_id == queue_id && known->reconcile == reconcile &&
		known->above == above && known->below == below && hf_page_stands(index, known->block, known->lsn))
		return true;
	buffer = find_page(table, index, &gap, &at);
	if (!BufferIsValid(buffer))
		return true;			/* the index has no page yet */
	empty = ends_there(index, &gap, BufferGetPage(buffer), at);
	if (empty)
	{
		gap.block = BufferGetBlockNumber(buffer);
		gap.lsn = PageGetLSN(BufferGetPage(buffer));
		*known = gap;
	}
	_bt_relbuf(index, buffer);
	return empty;
}
