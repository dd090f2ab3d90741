/*-------------------------------------------------------------------------
 *
 * holdfast.h
 *	  The one header: the map of src/, a section of prototypes per file.
 *
 * Rows are read and written through the table and index access methods, not
 * by SQL.  What the executor would have checked is checked here instead:
 *
 *		read-only, recovery, parallel mode		hf_begin (call.c)
 *		rights									access.c, on GetUserId()
 *		CHECK and NOT NULL						arguments are bounded (args.c), rows
 *												are made by the state machine
 *		unique indexes							hf_insert, hf_insert_unique (row.c)
 *		foreign keys, user triggers, rules,
 *		row security, exclusion constraints		refused by hf_open (table.c)
 *		partition bounds						evidence.c routes by them
 *
 * Lock order: job, ledger (parent key, then children by key), stream; within
 * a call by job_id, key, (queue, stream).
 *
 *-------------------------------------------------------------------------
 */
#ifndef HOLDFAST_H
#define HOLDFAST_H

#include "postgres.h"

#include "access/genam.h"
#include "access/htup_details.h"
#include "access/relscan.h"
#include "access/tableam.h"
#include "datatype/timestamp.h"
#include "executor/tuptable.h"
#include "catalog/pg_collation_d.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/ilist.h"
#include "nodes/execnodes.h"
#include "portability/instr_time.h"
#include "access/relation.h"
#include "utils/backend_status.h"
#include "utils/guc.h"
#include "utils/jsonb.h"
#include "utils/rel.h"
#include "utils/snapshot.h"
#include "utils/timestamp.h"
#include "utils/uuid.h"

/* ---------------------------------------------------------------- what differs between major versions */

#if PG_VERSION_NUM < 180000
#define pg_noreturn pg_attribute_noreturn()
#endif
static inline IndexScanDesc
hf_index_beginscan_bitmap(Relation index, Snapshot snapshot, int nkeys)
{
#if PG_VERSION_NUM >= 180000
	return index_beginscan_bitmap(index, snapshot, NULL, nkeys);
#else
	return index_beginscan_bitmap(index, snapshot, nkeys);
#endif
}

static inline IndexScanDesc
hf_index_beginscan(Relation heap, Relation index, Snapshot snapshot, int nkeys)
{
#if PG_VERSION_NUM >= 180000
	return index_beginscan(heap, index, snapshot, NULL, nkeys, 0);
#else
	return index_beginscan(heap, index, snapshot, nkeys, 0);
#endif
}

/* The leaf page of a btree where a key belongs, share-locked; invalid if the index is empty.  For who includes access/nbtree.h. */
#if PG_VERSION_NUM >= 170000
#define hf_bt_search(heap, index, key, buffer) _bt_freestack(_bt_search(index, heap, key, buffer, BT_READ))
#elif PG_VERSION_NUM >= 160000
#define hf_bt_search(heap, index, key, buffer) _bt_freestack(_bt_search(index, heap, key, buffer, BT_READ, NULL))
#else
#define hf_bt_search(heap, index, key, buffer) _bt_freestack(_bt_search(index, key, buffer, BT_READ, NULL))
#endif

#if PG_VERSION_NUM >= 160000
typedef RelFileNumber HfRelFileNumber;
#define hf_relfilenumber(rel) ((rel)->rd_locator.relNumber)
#else
typedef Oid HfRelFileNumber;
#define hf_relfilenumber(rel) ((rel)->rd_node.relNode)
#endif

/* BRIN keeps pins in the IndexInfo of an insertion. */
static inline void
hf_index_insert_cleanup(Relation index, struct IndexInfo *info)
{
#if PG_VERSION_NUM >= 170000
	index_insert_cleanup(index, info);
#endif
}

/* Whether an index keeps only a summary of a page, and so must hear of a HOT update too. */
static inline bool
hf_index_summarizes(const struct IndexInfo *info)
{
#if PG_VERSION_NUM >= 160000
	return info->ii_Summarizing;
#else
	return false;
#endif
}

/* The i-th entry, from 1, of this transaction's copy of pg_stat_activity. */
static inline LocalPgBackendStatus *
hf_backend_status(int i)
{
#if PG_VERSION_NUM >= 160000
	return pgstat_get_local_beentry_by_index(i);
#else
	return pgstat_fetch_stat_local_beentry(i);
#endif
}

/* Which indexes want an entry of the new version. */
typedef enum HfIndexes
{
	HF_NO_INDEXES, HF_SUMMARIZING_INDEXES, HF_ALL_INDEXES
} HfIndexes;

static inline TM_Result
hf_table_tuple_update(Relation rel, ItemPointer otid, TupleTableSlot *slot, CommandId cid, Snapshot snapshot, bool wait,
					  TM_FailureData *tmfd, LockTupleMode *lockmode, HfIndexes *indexes)
{
	TM_Result	result;
#if PG_VERSION_NUM >= 160000
	TU_UpdateIndexes update = TU_None;
#else
	bool		update = false;
#endif

	result = table_tuple_update(rel, otid, slot, cid, snapshot, InvalidSnapshot, wait, tmfd, lockmode, &update);
#if PG_VERSION_NUM >= 160000
	*indexes = update == TU_All ? HF_ALL_INDEXES : update == TU_Summarizing ? HF_SUMMARIZING_INDEXES : HF_NO_INDEXES;
#else
	*indexes = update ? HF_ALL_INDEXES : HF_NO_INDEXES;
#endif
	return result;
}

/* ---------------------------------------------------------------- names and bounds */

#define HF_SCHEMA "holdfast"

#ifndef HOLDFAST_VERSION
#define HOLDFAST_VERSION "unknown"		/* the Makefile gives it */
#endif

/* SQLSTATE class JQ: those a worker branches on */
#define ERRCODE_HF_LEASE_LOST			MAKE_SQLSTATE('J','Q','0','0','1')
#define ERRCODE_HF_RECONCILE_FIRST		MAKE_SQLSTATE('J','Q','0','0','3')
#define ERRCODE_HF_ILLEGAL_TRANSITION	MAKE_SQLSTATE('J','Q','0','0','4')
#define ERRCODE_HF_LEASE_SHORT			MAKE_SQLSTATE('J','Q','0','0','5')
#define ERRCODE_HF_NO_DELAY				MAKE_SQLSTATE('J','Q','0','0','6')
#define ERRCODE_HF_INTENT_MISMATCH		MAKE_SQLSTATE('J','Q','0','0','7')
#define ERRCODE_HF_CLAIM_UNCOMMITTED	MAKE_SQLSTATE('J','Q','0','0','8')

/* bounds of arguments */
#define HF_MAX_NAME			200		/* bytes: queue, action, class, worker, stream, policy */
#define HF_MAX_TEXT			1000	/* bytes: subject, scope, correlation id, reason */
#define HF_MAX_MESSAGE		8192	/* bytes; longer messages are cut, never refused */
#define HF_MAX_PAYLOAD		(64 * 1024 * 1024)	/* bytes of jsonb */
#define HF_MAX_JSONB		(16 * 1024 * 1024)	/* the same of headers, results, details, evidence */
#define HF_MAX_QTY			1000
#define HF_MAX_BATCH		10000
#define HF_MAX_QUEUES		64		/* of one claim_any */
#define HF_AT_ONCE			100		/* rows inserted in one go */
#define HF_MAX_ASIDE		100		/* jobs a claim settles, suppresses or defers besides */
#define HF_MAX_LEASE_MS		INT64CONST(86400000)		/* one day */
#define HF_MAX_DELAY_MS		INT64CONST(315360000000)	/* ten years */
#define HF_MAX_RESUMES		10		/* snoozes and releases in a row that are free */

#define HF_NO_QUEUE			0		/* finding.queue of what concerns no queue; queues count from 1 */

/* ---------------------------------------------------------------- columns
 * The tables as the library knows them: X(enum, column name).  The number of
 * a column is looked up by its name, so that a column which was added or
 * dropped does no harm.
 */
#define HF_JOB_COLUMNS(X) \
	X(JOB_ID, "job_id") X(JOB_ENQUEUED_AT, "enqueued_at") X(JOB_KEY, "idempotency_key") \
	X(JOB_QUEUE, "queue") X(JOB_PRIORITY, "priority") X(JOB_INTENT_VERSION, "intent_version") \
	X(JOB_SIDE_EFFECTS, "side_effects") X(JOB_TIMEOUT_MS, "timeout_ms") X(JOB_MAX_ATTEMPTS, "max_attempts") \
	X(JOB_ACTION_KEY, "action_key") X(JOB_SUBJECT, "subject") X(JOB_SCOPE, "scope") \
	X(JOB_CORRELATION_ID, "correlation_id") X(JOB_STREAM, "stream") X(JOB_RETRY_POLICY, "retry_policy") \
	X(JOB_ENQUEUED_BY, "enqueued_by") X(JOB_LEDGER_PLACE, "ledger_place") X(JOB_MODE, "mode") X(JOB_RUN_AFTER, "run_after") \
	X(JOB_GIVE_UP_AT, "give_up_at") X(JOB_STATUS, "status") X(JOB_ATTEMPT_NUMBER, "attempt_number") \
	X(JOB_FAILURES, "failures") X(JOB_RECONCILES, "reconciles") X(JOB_LOSSES, "losses") \
	X(JOB_RESUMES, "resumes") X(JOB_FENCING_TOKEN, "fencing_token") X(JOB_LEASE_ID, "lease_id") \
	X(JOB_LEASE_EXPIRES_AT, "lease_expires_at") X(JOB_STARTED_AT, "started_at") \
	X(JOB_LAST_HEARTBEAT_AT, "last_heartbeat_at") X(JOB_LAST_EVENT_AT, "last_event_at") \
	X(JOB_CANCEL_REQUESTED_AT, "cancel_requested_at") X(JOB_PARKED_FROM, "parked_from") X(JOB_WORKER_NAME, "worker_name") \
	X(JOB_FINAL_REASON, "final_reason") X(JOB_LAST_ERROR_CLASS, "last_error_class") \
	X(JOB_LAST_ERROR_MESSAGE, "last_error_message") X(JOB_PAYLOAD_DIGEST, "payload_digest") \
	X(JOB_HEADERS, "headers") X(JOB_PAYLOAD, "payload")

/* dead_job begins with the columns of job, in the same order */
#define HF_DEAD_JOB_COLUMNS(X) \
	X(DEAD_ENDED_AT, "ended_at") X(DEAD_REASON, "reason")

#define HF_LEDGER_COLUMNS(X) \
	X(LEDGER_KEY, "idempotency_key") X(LEDGER_CREATED_AT, "created_at") X(LEDGER_QUEUE, "queue") X(LEDGER_INTENT_VERSION, "intent_version") \
	X(LEDGER_SUBJECT, "subject") X(LEDGER_ACTION_KEY, "action_key") X(LEDGER_SCOPE, "scope") \
	X(LEDGER_PAYLOAD_DIGEST, "payload_digest") X(LEDGER_PARENT_KEY, "parent_key") X(LEDGER_EFFECT, "effect") \
	X(LEDGER_JOB_ID, "job_id") X(LEDGER_ATTEMPT_NUMBER, "attempt_number") X(LEDGER_HAS_EFFECTS, "has_effects") \
	X(LEDGER_CHANGED_AT, "changed_at") X(LEDGER_STATE, "state") X(LEDGER_EVIDENCE, "evidence")

#define HF_EVENT_COLUMNS(X) \
	X(EVENT_ID, "event_id") X(EVENT_AT, "at") X(EVENT_JOB_ID, "job_id") X(EVENT_KEY, "idempotency_key") \
	X(EVENT_QUEUE, "queue") X(EVENT_ATTEMPT_NUMBER, "attempt_number") X(EVENT_KIND, "kind") \
	X(EVENT_SUBJECT, "subject") X(EVENT_ACTION_KEY, "action_key") X(EVENT_CORRELATION_ID, "correlation_id") \
	X(EVENT_LEASE_ID, "lease_id") X(EVENT_WORKER_NAME, "worker_name") X(EVENT_MODE, "mode") \
	X(EVENT_LEASE_EXPIRES_AT, "lease_expires_at") X(EVENT_FENCING_TOKEN, "fencing_token") X(EVENT_LAST_HEARTBEAT_AT, "last_heartbeat_at") \
	X(EVENT_SCOPE, "scope") X(EVENT_INTENT_VERSION, "intent_version") X(EVENT_FAILURES, "failures") \
	X(EVENT_MAX_ATTEMPTS, "max_attempts") X(EVENT_PAYLOAD_DIGEST, "payload_digest") \
	X(EVENT_ENQUEUED_AT, "enqueued_at") X(EVENT_ENQUEUED_BY, "enqueued_by") \
	X(EVENT_EXCEPTION_CLASS, "exception_class") X(EVENT_MESSAGE, "message") X(EVENT_TIMEOUT_KIND, "timeout_kind") \
	X(EVENT_TIMEOUT_MS, "timeout_ms") X(EVENT_TIMEOUT_LIMIT_MS, "timeout_limit_ms") X(EVENT_ELAPSED_MS, "elapsed_ms") \
	X(EVENT_WORKER_RESULT, "worker_result") X(EVENT_SIDE_EFFECT_STATE, "side_effect_state") \
	X(EVENT_RETRY_POLICY, "retry_policy") X(EVENT_DELAY_MS, "delay_ms") X(EVENT_JITTER_MS, "jitter_ms") \
	X(EVENT_NEXT_NOT_BEFORE, "next_not_before") X(EVENT_DETAIL, "detail")

#define HF_FINDING_COLUMNS(X) \
	X(FINDING_AT, "at") X(FINDING_QUEUE, "queue") X(FINDING_KIND, "kind") X(FINDING_JOB_ID, "job_id") \
	X(FINDING_ATTEMPT_NUMBER, "attempt_number") X(FINDING_LEASE_ID, "lease_id") \
	X(FINDING_WORKER_NAME, "worker_name") X(FINDING_DETAIL, "detail")

#define HF_UNKNOWN_EFFECT_COLUMNS(X) \
	X(UNKNOWN_KEY, "idempotency_key") X(UNKNOWN_QUEUE, "queue") X(UNKNOWN_JOB_ID, "job_id") X(UNKNOWN_SINCE, "since")

#define HF_STREAM_COLUMNS(X) \
	X(STREAM_QUEUE, "queue") X(STREAM_KEY, "key") X(STREAM_STATE, "state") \
	X(STREAM_CONSECUTIVE, "consecutive_terminal") X(STREAM_THRESHOLD, "threshold") \
	X(STREAM_COOL_DOWN, "cool_down") X(STREAM_OPENED_AT, "opened_at") \
	X(STREAM_COOL_DOWN_ENDS, "cool_down_ends") X(STREAM_CLOSED_AT, "closed_at") \
	X(STREAM_TRIAL_JOB_ID, "trial_job_id") X(STREAM_HOLDS, "holds")

#define HF_QUEUE_COLUMNS(X) \
	X(QUEUE_ID, "queue_id") X(QUEUE_NAME, "queue_name") X(QUEUE_LEASE, "lease") X(QUEUE_TIMEOUT, "timeout") \
	X(QUEUE_GRACE, "grace") X(QUEUE_HEARTBEAT, "heartbeat") X(QUEUE_RETRY_POLICY, "retry_policy") \
	X(QUEUE_MAX_ATTEMPTS, "max_attempts") X(QUEUE_SIDE_EFFECTS, "side_effects") X(QUEUE_RECONCILE, "reconcile") \
	X(QUEUE_PAUSED, "paused") X(QUEUE_PAUSE_REASON, "pause_reason")

#define HF_QUEUE_GRANT_COLUMNS(X) \
	X(GRANT_QUEUE_NAME, "queue_name") X(GRANT_ROLE_NAME, "role_name") X(GRANT_KIND, "kind") X(GRANT_ROLE_OID, "role_oid")

#define HF_RETRY_POLICY_COLUMNS(X) \
	X(POLICY_NAME, "policy_name") X(POLICY_BASE_DELAY, "base_delay") X(POLICY_BACKOFF_RATE, "backoff_rate") \
	X(POLICY_MAX_DELAY, "max_delay") X(POLICY_JITTER_WINDOW, "jitter_window") X(POLICY_MIN_DELAY, "min_delay") \
	X(POLICY_MAX_ATTEMPTS, "max_attempts") X(POLICY_LOST_LEASE_COUNTS, "lost_lease_counts") \
	X(POLICY_MAX_LOST, "max_lost") X(POLICY_MAX_RESET, "max_reset") X(POLICY_RECONCILE_DELAY, "reconcile_delay") \
	X(POLICY_RECONCILE_MAX, "reconcile_max")

#define HF_ERROR_RULE_COLUMNS(X) \
	X(RULE_POLICY_NAME, "policy_name") X(RULE_ERROR_CLASS, "error_class") X(RULE_DISPOSITION, "disposition") \
	X(RULE_SIDE_EFFECT, "side_effect") X(RULE_HIDDEN, "hidden")

#define HF_SETTING_COLUMNS(X) \
	X(SETTING_NAME, "name") X(SETTING_VALUE, "value")

#define HF_CLAIM_FRONT_COLUMNS(X) \
	X(FRONT_QUEUE, "queue") X(FRONT_RECONCILE, "reconcile") X(FRONT_PRIORITY, "priority") \
	X(FRONT_RUN_AFTER, "run_after") X(FRONT_JOB_ID, "job_id") X(FRONT_RUNNING_RUN_AFTER, "running_run_after") \
	X(FRONT_RUNNING_JOB_ID, "running_job_id") X(FRONT_LEASE_END, "lease_end") X(FRONT_CLOCK, "clock")

/* attempts of watched tables and imported ones: what watch.c writes of a row */
#define HF_RECORD_COLUMNS(X) \
	X(RECORD_ID, "record_id") X(RECORD_RECORDED_AT, "recorded_at") X(RECORD_SOURCE, "source") \
	X(RECORD_SYNTHETIC_LEASE, "synthetic_lease") X(RECORD_JOB_ID, "job_id") X(RECORD_SUBJECT, "subject") \
	X(RECORD_ACTION_KEY, "action_key") X(RECORD_STARTED_AT, "started_at") X(RECORD_ATTEMPT_NUMBER, "attempt_number") \
	X(RECORD_LEASE_ID, "lease_id") X(RECORD_KEY, "idempotency_key") X(RECORD_SCOPE, "scope") \
	X(RECORD_WORKER_NAME, "worker_name") X(RECORD_LEASE_EXPIRES_AT, "lease_expires_at") \
	X(RECORD_LAST_REPORT_AT, "last_report_at") X(RECORD_FINISHED_AT, "finished_at") X(RECORD_OUTCOME, "outcome") \
	X(RECORD_WORKER_RESULT, "worker_result") X(RECORD_SIDE_EFFECT_STATE, "side_effect_state") \
	X(RECORD_EXCEPTION_CLASS, "exception_class") X(RECORD_MESSAGE, "message") X(RECORD_TIMEOUT_MS, "timeout_ms") \
	X(RECORD_ELAPSED_MS, "elapsed_ms") X(RECORD_NEXT_NOT_BEFORE, "next_not_before") \
	X(RECORD_RETRY_POLICY, "retry_policy") X(RECORD_DELAY_MS, "delay_ms") X(RECORD_MAX_ATTEMPTS, "max_attempts") \
	X(RECORD_FAILURES, "failures") X(RECORD_REDRIVEN, "redriven") X(RECORD_FINAL, "final") \
	X(RECORD_STOP_REASON, "stop_reason") X(RECORD_PAYLOAD_DIGEST, "payload_digest") \
	X(RECORD_COUNTED_AT_CLAIM, "counted_at_claim")

#define HF_WATCH_COLUMNS(X) \
	X(WATCH_ID, "watch_id") X(WATCH_SOURCE, "source") X(WATCH_MAPPING, "mapping") X(WATCH_MODE, "mode") \
	X(WATCH_WATCHED_AT, "watched_at")

#define HF_ENUM_ENTRY(e, n) e,
enum { HF_JOB_COLUMNS(HF_ENUM_ENTRY) HF_DEAD_JOB_COLUMNS(HF_ENUM_ENTRY) DEAD_NCOLUMNS };
enum { HF_LEDGER_COLUMNS(HF_ENUM_ENTRY) LEDGER_NCOLUMNS };
enum { HF_EVENT_COLUMNS(HF_ENUM_ENTRY) EVENT_NCOLUMNS };
enum { HF_FINDING_COLUMNS(HF_ENUM_ENTRY) FINDING_NCOLUMNS };
enum { HF_UNKNOWN_EFFECT_COLUMNS(HF_ENUM_ENTRY) UNKNOWN_NCOLUMNS };
enum { HF_STREAM_COLUMNS(HF_ENUM_ENTRY) STREAM_NCOLUMNS };
enum { HF_QUEUE_COLUMNS(HF_ENUM_ENTRY) QUEUE_NCOLUMNS };
enum { HF_QUEUE_GRANT_COLUMNS(HF_ENUM_ENTRY) GRANT_NCOLUMNS };
enum { HF_RETRY_POLICY_COLUMNS(HF_ENUM_ENTRY) POLICY_NCOLUMNS };
enum { HF_ERROR_RULE_COLUMNS(HF_ENUM_ENTRY) RULE_NCOLUMNS };
enum { HF_SETTING_COLUMNS(HF_ENUM_ENTRY) SETTING_NCOLUMNS };
enum { HF_CLAIM_FRONT_COLUMNS(HF_ENUM_ENTRY) FRONT_NCOLUMNS };
enum { HF_RECORD_COLUMNS(HF_ENUM_ENTRY) RECORD_NCOLUMNS };
enum { HF_WATCH_COLUMNS(HF_ENUM_ENTRY) WATCH_NCOLUMNS };
#define JOB_NCOLUMNS DEAD_ENDED_AT

typedef enum HfTableId
{
	HF_JOB, HF_DEAD_JOB, HF_LEDGER, HF_EVENT, HF_EVENT_OVERFLOW, HF_FINDING, HF_UNKNOWN_EFFECT, HF_STREAM,
	HF_QUEUE, HF_QUEUE_GRANT, HF_RETRY_POLICY, HF_ERROR_RULE, HF_SETTING, HF_CLAIM_FRONT,
	HF_RECORD, HF_WATCH,
	HF_NTABLES
} HfTableId;

/* ---------------------------------------------------------------- call.c: the frame of every call */

typedef struct HfTable HfTable;
typedef struct HfEvents HfEvents;

typedef struct HfCall
{
	MemoryContext cxt;			/* everything the call allocates; emptied by hf_end */
	MemoryContext caller_cxt;
	bool		write;
	TimestampTz now;
	uint64		generation;		/* of what the backend remembers of our tables */
	HfTable    *tables[HF_NTABLES];
	HfEvents   *events;
	List	   *streams;		/* ends of jobs with a stream, to be counted when the call ends */
	List	   *trials;			/* places of streams' rows whose trial it has named */
} HfCall;

extern void hf_begin(HfCall *call, const char *function, bool write);
extern void hf_end(HfCall *call);
extern CommandId hf_command_id(HfCall *call);
extern int	hf_call_depth(void);
extern bool hf_text_is(Datum value, const char *word);
extern Datum hf_word(const char *word);		/* a text constant, made once per backend */

/* ---------------------------------------------------------------- table.c: our tables, through the access methods */

/* What a backend remembers of one index. */
typedef struct HfIndexShape
{
	Oid			indexid;
	NameData	name;
	bool		usable;			/* for scans: valid, not only ready */
	IndexInfo  *info;
	ExprState  *predicate;
} HfIndexShape;

/* How the values of one column lie in a row. */
typedef struct HfColumn
{
	int16		len;			/* -1: a varlena */
	bool		byval;
	bool		packable;		/* a short varlena may have a short header */
	uint8		align;			/* bytes */
} HfColumn;

/* What a backend remembers of one table or event partition. */
typedef struct HfShape
{
	bool		stale;			/* an invalidation came in since it was built */
	uint64		resets;			/* how often everything had been invalidated by then */
	TupleDesc	desc;			/* a copy for slots, not counted: to pin and unpin it for each row costs more than the row */
	AttrNumber *att;			/* column enum -> attribute number */
	bool		in_order;		/* the columns are those that the library knows, in its order, and no others */
	HfColumn   *columns;		/* by attribute */
	Size		fixed_room;		/* of all columns that are no varlenas, and of the alignment of all */
	Datum	   *fill;			/* by attribute: what an insert puts there */
	bool	   *fill_null;
	bool		behind;			/* an unknown column has a default that only SQL can make */
	int			nindexes;
	HfIndexShape *indexes;
	ExprContext *econtext;		/* for their predicates */
	MemoryContext cxt;			/* where all this lives */
	TupleTableSlot **slots;		/* for rows that are inserted in bulk, made when first asked for */
} HfShape;

struct HfTable
{
	HfTableId	id;
	Relation	rel;
	const AttrNumber *att;		/* column enum -> attribute number */
	HfShape    *shape;
	Relation   *indexes;		/* opened when needed */
	struct IndexInfo **infos;	/* this call's own */
	MemoryContext cxt;
	dlist_head	rows;			/* HfRow, not yet freed */
	struct HfRow *spare;		/* a row given back, kept for the next that is asked for */
	TupleTableSlot *formed;		/* for the row that is being stored */
	IndexScanDesc lookup;		/* kept for the next lookup of the call */
	SnapshotData dirty;			/* its snapshot */
	BlockNumber nblocks;		/* 0: not asked yet */
};

extern void hf_table_init(void);
extern void hf_tables_check(void);
extern uint64 hf_tables_generation(void);
extern uint64 hf_job_generation(void);
extern int	hf_table_ncolumns(HfTableId id);
extern const char *hf_column_name(HfTableId id, int column);
extern const char *hf_table_name(HfTableId id);
extern Oid	hf_sequence_oid(const char *name);
extern Oid	hf_table_oid(HfTableId id);
extern const char *hf_unsupported(Relation rel, Oid our_namespace);
extern HfTable *hf_open(HfCall *call, HfTableId id);
extern HfTable *hf_open_partition(HfCall *call, Relation rel);
extern void hf_close(HfTable *table);
extern Relation hf_index(HfTable *table, const char *suffix);
extern Relation hf_open_index(HfTable *table, int i);

/* ---------------------------------------------------------------- tuple.c: rows as the heap stores them */

extern void hf_columns_build(HfShape *shape);
extern HeapTuple hf_form_tuple(const HfShape *shape, Datum *values, bool *nulls);

/* ---------------------------------------------------------------- row.c: rows, made, changed, locked and stored */

/* A row being read and changed: the stored version, if any, and the next. */
typedef struct HfRow
{
	HfTable    *table;
	TupleTableSlot *stored;
	TupleTableSlot *next;
	dlist_node	node;			/* in table->rows: freed with the table at the latest */
} HfRow;

typedef enum HfLock
{
	HF_LOCKED, HF_BUSY, HF_GONE
} HfLock;

extern void hf_table_fill(HfTable *table, Datum *values, bool *nulls);
extern HfRow *hf_row_new(HfTable *table);
extern HfRow *hf_row_for(HfTable *table);
extern void hf_row_free(HfRow *row);
extern void hf_row_load(HfRow *row);
extern bool hf_may_be_locked(HfRow *row);
extern void hf_row_copy(HfRow *to, const HfRow *from, int ncolumns);
extern void hf_insert(HfCall *call, HfRow *row);
extern HeapTuple hf_row_tuple(HfRow *row);
extern void hf_multi_insert(HfCall *call, HfTable *table, HeapTuple *tuples, int n);
extern bool hf_insert_unique(HfCall *call, HfRow *row, const char *index_suffix, const pg_uuid_t *key, HfRow *probe,
							 void (*before) (HfRow *row));
extern bool hf_key_taken(HfRow *probe, const char *index_suffix, const pg_uuid_t *key);
extern bool hf_update(HfCall *call, HfRow *row);
extern bool hf_update_skip(HfCall *call, HfRow *row);
extern bool hf_delete(HfCall *call, HfRow *row);
extern void hf_update_locked(HfCall *call, HfRow *row);
extern void hf_delete_locked(HfCall *call, HfRow *row);
extern HfLock hf_lock(HfCall *call, HfRow *row, bool skip);

#define HF_ATT(row, column) ((row)->table->att[column] - 1)

static inline bool
hf_is_null(const HfRow *row, int column)
{
	return row->next->tts_isnull[HF_ATT(row, column)];
}

static inline Datum
hf_get(const HfRow *row, int column)
{
	return row->next->tts_values[HF_ATT(row, column)];
}

static inline void
hf_set(HfRow *row, int column, Datum value)
{
	row->next->tts_values[HF_ATT(row, column)] = value;
	row->next->tts_isnull[HF_ATT(row, column)] = false;
}

static inline void
hf_set_null(HfRow *row, int column)
{
	row->next->tts_values[HF_ATT(row, column)] = (Datum) 0;
	row->next->tts_isnull[HF_ATT(row, column)] = true;
}

#define hf_int32(row, column) DatumGetInt32(hf_get(row, column))
#define hf_int64(row, column) DatumGetInt64(hf_get(row, column))
#define hf_bool(row, column) DatumGetBool(hf_get(row, column))
#define hf_time(row, column) DatumGetTimestampTz(hf_get(row, column))
#define hf_uuid(row, column) DatumGetUUIDP(hf_get(row, column))
#define hf_text(row, column) DatumGetTextPP(hf_get(row, column))

/* ---------------------------------------------------------------- find.c: rows, found by a key or where they were stored */

extern bool hf_may_lie_at(HfTable *table, ItemPointer place);
extern bool hf_find_job(HfRow *row, int64 job_id);
extern bool hf_find_key(HfRow *row, const pg_uuid_t *key);
extern bool hf_find_key_at(HfRow *row, const pg_uuid_t *key, int key_column, ItemPointer place);
extern bool hf_find_queue(HfRow *row, int32 queue_id);
extern bool hf_find_live_key(HfRow *row, const pg_uuid_t *key);
extern void hf_note_job_place(const HfRow *row);
extern IndexScanDesc hf_lookup_scan(HfTable *table, Relation index);

/* ---------------------------------------------------------------- evidence.c: events, findings, refusals */

typedef struct HfEvent
{
	Datum		value[EVENT_NCOLUMNS];
	bool		null[EVENT_NCOLUMNS];
} HfEvent;

typedef struct HfDetail
{
	struct JsonbParseState *state;
} HfDetail;

extern void hf_evidence_init(void);
extern void hf_event_init(HfCall *call, HfEvent *event, const char *kind, HfRow *job);
extern void hf_event_set_enqueued(HfEvent *event, const HfRow *job);
extern void hf_event_add(HfCall *call, const HfEvent *event);
extern void hf_events_flush(HfCall *call);
extern void hf_finding(HfCall *call, const char *kind, int32 queue_id, const HfRow *job, const pg_uuid_t *lease_id,
					   Datum detail);
extern void hf_event_keep(HfEvent *to, const HfEvent *from);
extern void hf_event_follow(HfCall *call, HfEvent *event, const char *kind, const HfEvent *of);
extern void hf_event_finding(HfCall *call, const char *kind, const HfEvent *event);
extern void hf_remember_refusal(HfCall *call, const HfEvent *of, int sqlerrcode, const char *function);
extern void hf_remember_event(const HfEvent *event);
extern void hf_remember_job_refusal(HfCall *call, HfRow *job, int sqlerrcode, const char *function);
extern void hf_detail_cstring(HfDetail *detail, const char *key, const char *string);
extern void hf_detail_text(HfDetail *detail, const char *key, const text *string);
extern void hf_detail_int(HfDetail *detail, const char *key, int64 number);
extern void hf_detail_bool(HfDetail *detail, const char *key, bool truth);
extern void hf_detail_time(HfDetail *detail, const char *key, TimestampTz at);
extern void hf_detail_jsonb(HfDetail *detail, const char *key, Jsonb *jsonb);
extern Datum hf_detail_end(HfDetail *detail);

static inline void
hf_event_set(HfEvent *event, int column, Datum value)
{
	event->value[column] = value;
	event->null[column] = false;
}

static inline void
hf_event_copy(HfEvent *event, int column, const HfRow *row, int row_column)
{
	event->value[column] = hf_get(row, row_column);
	event->null[column] = hf_is_null(row, row_column);
}

/* ---------------------------------------------------------------- own.c: what the extension does itself */

extern bool hf_is_own(int triggers);
extern void hf_own_execute(const char *sql);
extern int	hf_own_suspend(void);
extern void hf_own_resume(int saved);
extern bool hf_be_alone(Oid relid, uint32 what, bool wait);

/* ---------------------------------------------------------------- guard.c: plain SQL on our own tables */

typedef struct HfGuard
{
	HfCall		call;
	struct TriggerData *trigger;
	const char *op;				/* UPDATE, DELETE, TRUNCATE */
	char	   *table;
	HfTableId	id;
	HfRow	   *old;
	HfRow	   *new;			/* of an UPDATE */
	bool		changed[DEAD_NCOLUMNS];
	bool	   *replaced;		/* by attribute: what the state machine puts into the new row */
} HfGuard;

extern const int hf_guard_nothing[];	/* no column */
extern void hf_detail_who(HfDetail *detail);
extern void hf_detail_changes(HfDetail *detail, struct TriggerData *trigger);
extern void hf_guard_remember(HfGuard *g, int sqlerrcode);
extern bool hf_guard_any_changed(const HfGuard *g, int but);
extern void hf_guard_check_columns(HfGuard *g, const int *identity, const int *allowed, const int *allowed_too,
								   const char *hint);
extern void hf_guard_put(HfGuard *g, int column, Datum value, bool null);

/* The rest are errmsg(), errdetail() and errhint(). */
#define hf_refuse(g, sqlerrcode, ...) \
	do { \
		hf_guard_remember((g), (sqlerrcode)); \
		ereport(ERROR, (errcode(sqlerrcode), __VA_ARGS__)); \
	} while (0)

/* ---------------------------------------------------------------- guardjob.c: jobs by plain SQL */

extern void hf_guard_before_job_update(HfGuard *g);
extern void hf_guard_before_job_delete(HfGuard *g);
extern void hf_guard_after_job_update(HfGuard *g);
extern void hf_guard_after_job_delete(HfGuard *g);
extern void hf_guard_before_dead_job(HfGuard *g);
extern void hf_guard_after_dead_job(HfGuard *g);

/* ---------------------------------------------------------------- ddlshape.c, for ddl.c, the event trigger */

typedef struct HfDdl
{
	struct EventTriggerData *event;
	const char *tag;
	Oid			ns;				/* schema holdfast */
	Oid			extension;
	bool		recorded;
} HfDdl;

/* An object that a command has made or changed. */
typedef struct HfDdlTarget
{
	Oid			classid;
	Oid			objid;
	const char *type;
	const char *identity;
	const char *schema;			/* or NULL */
	Oid			relid;			/* the table it belongs to, or InvalidOid */
} HfDdlTarget;

extern Oid	hf_ddl_ours(HfDdl *d, const char *name);
extern bool hf_ddl_is_ours(HfDdl *d, Oid relid);
extern Oid	hf_ddl_table_of(Oid classid, Oid objid);
extern Oid	hf_ddl_owner_of(Oid relid);
extern struct List *hf_ddl_parents(Oid relid);
extern bool hf_ddl_inherits(HfDdl *d, Oid relid);
extern bool hf_ddl_index_calls_others(Oid indexid);
extern bool hf_ddl_columns_of_others(Relation rel);
extern bool hf_ddl_partition_is_day(HfDdl *d, const HfDdlTarget *t);
extern bool hf_ddl_adds_check(struct AlterTableStmt *stmt);
extern bool hf_ddl_leaves_no_record(HfDdl *d, const HfDdlTarget *t);
extern bool hf_ddl_is_harmless(HfDdl *d);

/* ---------------------------------------------------------------- watchmapping.c: what the columns of a watched table mean */

typedef enum HfMapKey
{
	MAP_ID, MAP_STATUS, MAP_ATTEMPT_NUMBER, MAP_RUN_AFTER, MAP_LEASE, MAP_LEASE_EXPIRES_AT, MAP_WORKER_NAME,
	MAP_EXCEPTION_CLASS, MAP_MESSAGE, MAP_SUBJECT, MAP_ACTION_KEY, MAP_SCOPE, MAP_IDEMPOTENCY_KEY, MAP_TIMEOUT,
	MAP_MAX_ATTEMPTS, MAP_RETRY_POLICY, MAP_PAYLOAD, MAP_WHEN,
	MAP_NKEYS
} HfMapKey;

typedef enum HfRowClass
{
	HF_ROW_PENDING, HF_ROW_RUNNING, HF_ROW_SUCCEEDED, HF_ROW_FAILED, HF_ROW_DEAD,
	HF_ROW_OTHER,				/* a status that the mapping does not name */
	HF_ROW_ABSENT				/* no such row, or one that "when" leaves out */
} HfRowClass;

typedef enum HfWatchMode
{
	HF_OBSERVE, HF_CORRECT, HF_ENFORCE
} HfWatchMode;

typedef struct HfMapField
{
	AttrNumber	att;			/* a column, or 0 */
	struct ExprState *expr;		/* an expression over the row, or NULL */
	text	   *constant;		/* a retry policy's name, or NULL */
	Oid			type;
	FmgrInfo	output;
} HfMapField;

typedef struct HfMapStatus
{
	const char *value;
	int			len;
	HfRowClass	class;
} HfMapStatus;

typedef struct HfWatch
{
	int32		watch_id;
	char	   *source;
	HfWatchMode mode;
	TimestampTz since;
	HfMapField	fields[MAP_NKEYS];
	int			nstatuses;
	HfMapStatus *statuses;
	HfRowClass	gone;			/* what it means that a running row is deleted */
	bool		blind;			/* no status is "running": the queue writes nothing at a claim */
	bool		has_dead;		/* so that a failed row may come back */
	struct ExprContext *econtext;
	char	   *problem;		/* why the mapping does not fit the table, or NULL */
	bool		busy;			/* a row is being read */
} HfWatch;

extern const char *const hf_watch_modes[];
extern bool hf_watch_maps(const HfWatch *w, HfMapKey key);
extern Relation hf_watch_open(Oid relid, LOCKMODE lockmode);
extern void hf_watch_compile(HfWatch *w, Relation rel, Jsonb *mapping);

/* ---------------------------------------------------------------- watchvalue.c: mappings remembered, and values of a row */

extern void hf_watch_init(void);
extern HfWatch *hf_watch_of(Relation rel, int32 watch_id);	/* NULL: no such watch */
extern void hf_watch_refuse_busy(const HfWatch *w, Relation rel);
extern HfRowClass hf_watch_class(HfWatch *w, TupleTableSlot *slot);
extern bool hf_watch_when(HfWatch *w, TupleTableSlot *slot);
extern text *hf_watch_text(HfWatch *w, HfMapKey key, TupleTableSlot *slot, int max_bytes);
extern bool hf_watch_int(HfWatch *w, HfMapKey key, TupleTableSlot *slot, int32 *value);
extern bool hf_watch_time(HfWatch *w, HfMapKey key, TupleTableSlot *slot, TimestampTz *value);
extern int64 hf_watch_ms(HfWatch *w, HfMapKey key, TupleTableSlot *slot);	/* -1: none */
extern bytea *hf_watch_digest(HfWatch *w, TupleTableSlot *slot);
extern int64 hf_watch_seed(HfWatch *w, TupleTableSlot *slot);
extern char *hf_time_text(TimestampTz at);	/* ISO 8601 in UTC, whatever the session's settings */

/* ---------------------------------------------------------------- watchrecord.c: attempts of watched rows */

typedef struct HfChange
{
	HfCall	   *call;
	HfWatch    *w;
	TupleTableSlot *old;		/* NULL: inserted */
	TupleTableSlot *new;		/* NULL: deleted */
	HfRowClass	was;
	HfRowClass	is;
	bool		begins;			/* an attempt begins */
	bool		ends;			/* the running one ends */
	bool		requeued;		/* pending again */
	text	   *id;
	HfRow	   *last;			/* the latest attempt on record, or NULL */
	bool		open;			/* it has not ended yet */
} HfChange;

extern bool hf_change_classify(HfChange *c);
extern void hf_change_look_up(HfChange *c);
extern void hf_change_record(HfChange *c);
extern const char *hf_change_outcome(const HfChange *c);	/* of the attempt that ends */
extern int32 hf_change_failures(HfChange *c);
extern int32 hf_change_number(const HfChange *c, bool *counted_at_claim);	/* of the attempt that begins */
extern bool hf_record_is(const HfRow *record, int column, const char *word);
extern void hf_record_redriven(HfCall *call, HfWatch *w, text *id);

/* ---------------------------------------------------------------- watchviolation.c: what a change breaks */

typedef enum HfViolation
{
	HF_SETTLED_REVIVED, HF_REQUEUE_NOW, HF_NO_RUN_AFTER, HF_RETRY_NOW, HF_ATTEMPT_SAME, HF_KEY_CHANGED, HF_KEY_ANEW,
	HF_LEASE_BRIEF, HF_LEASE_TAKEN,
	HF_NVIOLATIONS
} HfViolation;

extern uint32 hf_violations(HfChange *c);	/* a bit for each */
extern TimestampTz hf_retry_not_before(HfChange *c);	/* of the attempt that begins; DT_NOBEGIN: at any time */
extern int64 hf_watch_delay_ms(HfChange *c, const char **policy_name);
extern void hf_violations_record(HfChange *c, uint32 violations, const char *action, TimestampTz corrected_to);
pg_noreturn extern void hf_violation_refuse(HfChange *c, uint32 violations);

/* ---------------------------------------------------------------- watch.c: the triggers of watched tables */

extern int32 hf_watch_id_of(Relation rel);	/* 0: not watched */
extern char *hf_watch_misshapen(Relation rel);	/* a trigger of ours that is not as watch() makes it, in a sentence; or NULL */
extern char *hf_watch_recheck(Oid relid);	/* what is wrong with the watch on a table or partition, or NULL */

/* ---------------------------------------------------------------- ddl.c, for ddlwatch.c */

extern bool hf_ddl_is_permitted(void);
extern void hf_ddl_record_for(HfDdl *d, int32 queue, const char *type, const char *identity, const char *note);
extern void hf_ddl_refuse_trigger(HfDdl *d, const char *identity);
extern void hf_ddl_refuse_unpermitted(HfDdl *d, const char *identity, const char *why);
extern char *hf_ddl_put_back(HfDdl *d, Oid relid);

/* ---------------------------------------------------------------- ddlwatch.c, for ddl.c */

extern Oid	hf_watch_top(Oid relid);
extern void hf_ddl_watched_changed(HfDdl *d, const HfDdlTarget *t);
extern void hf_ddl_watched_inherited(HfDdl *d, Oid relid);
extern void hf_ddl_watch_dropped(HfDdl *d, const char *identity);
extern void hf_ddl_trigger_dropped(HfDdl *d, struct DropStmt *stmt);

/* ---------------------------------------------------------------- history.c: what the events say of a lease */

typedef struct HfHistory
{
	bool		known;			/* the lease was granted, within the time looked back */
	HfEvent		last;			/* the job's latest event */
	HfEvent		started;		/* of the lease */
	bool		ended;			/* the attempt's end is on record */
	HfEvent		end;			/* action_attempt_succeeded, _failed, _lost, action_snoozed, ... */
	bool		decided;
	HfEvent		decision;		/* what was decided at that end, if an event of its own says it */
	List	   *findings;		/* HfEvent: what reconcile() was told under the lease, latest first */
	bool		stale_seen;		/* a stale report of the lease is on record already */
	bool		stale_heartbeat_seen;
} HfHistory;

extern bool hf_history(HfCall *call, int64 job_id, const pg_uuid_t *lease_id, HfHistory *history);

/* An entry of an index of a day of events, by which days without it are passed over. */
typedef struct HfProbe
{
	const char *suffix;			/* of the index's name */
	Snapshot	snapshot;
	ScanKey		keys;
	int			nkeys;
} HfProbe;

extern void hf_event_tables(HfCall *call, TimestampTz since, TimestampTz until, const HfProbe *probe,
							void (*scan) (HfTable *table, void *arg), void *arg);

/* ---------------------------------------------------------------- access.c: who may do what with a queue */

typedef enum HfKind
{
	HF_PRODUCER, HF_WORKER, HF_OPERATOR, HF_READER
} HfKind;

struct HfQueue;
extern void hf_access_forget(void);
extern bool hf_is_owner(void);
extern bool hf_is_granted(const struct HfQueue *queue, HfKind kind);
extern bool hf_is_granted_id(int32 queue_id, HfKind kind);
extern void hf_check_granted(const struct HfQueue *queue, HfKind kind);

/* ---------------------------------------------------------------- ledger.c: what is known about side effects */

typedef enum HfLedgerLook
{
	HF_LEDGER_NONE,				/* the job has no side effects, or its row is gone */
	HF_LEDGER_BUSY,				/* another transaction is at it (skip only) */
	HF_LEDGER_HELD				/* locked and loaded */
} HfLedgerLook;

extern HfLedgerLook hf_ledger_lock(HfCall *call, const pg_uuid_t *key, bool skip, HfRow **ledger);
extern HfLedgerLook hf_ledger_lock_of(HfCall *call, const HfRow *job, bool skip, HfRow **ledger);
extern HfRow *hf_ledger_of(HfCall *call, const HfRow *job);
extern bool hf_ledger_is(const HfRow *ledger, const char *state);
extern void hf_ledger_set(HfCall *call, HfRow *ledger, HfRow *job, const char *state, Datum evidence);
extern bool hf_ledger_start(HfCall *call, HfRow *ledger, HfRow *job);
extern void hf_ledger_unstart(HfCall *call, HfRow *ledger);
extern void hf_ledger_note_place(const HfRow *ledger, HfRow *job);
extern HfRow *hf_ledger_new(HfCall *call, const HfRow *job, const char *state);
extern void hf_ledger_free(List *rows);
extern List *hf_ledger_children(HfCall *call, const HfRow *ledger, bool lock);
extern int	hf_ledger_fail_children(HfCall *call, const HfRow *ledger, HfRow *job);
extern bool hf_ledger_open_child(HfCall *call, const HfRow *ledger, bool *unknown);
extern bool hf_ledger_any_unknown(HfCall *call, const HfRow *ledger);
extern Datum hf_ledger_effects(HfCall *call, const HfRow *ledger);

/* ---------------------------------------------------------------- job.c: the state machine of a job */

/* It never goes back: the number of the last attempts stays where integers end. */
static inline int32
hf_next_attempt(int32 number)
{
	return number == PG_INT32_MAX ? number : number + 1;
}

typedef struct HfReport
{
	text	   *error_class;
	text	   *message;
	int			side_effect;	/* HfSideEffect, or -1: by the rule */
	bool		retry_always;	/* schedule_retry: the disposition is retry */
	int64		asked_ms;		/* a delay the worker asks for, or -1 */
	text	   *timeout_kind;
	int64		timeout_limit_ms;	/* or -1 */
	Jsonb *detail;
	bool		lost;			/* nobody reported: the lease ended */
	const char *function;		/* who decides: for the evidence */
} HfReport;

typedef struct HfDecision
{
	const char *decision;
	const char *reason;
	const char *rule;
	const char *retry_policy;
	int64		delay_ms;		/* -1: none */
	int64		jitter_ms;
	TimestampTz next_not_before;	/* 0: none */
	int32		attempt_number;
	int32		failures;
	int32		max_attempts;
	char	   *because;
} HfDecision;

extern const struct HfPolicy *hf_job_policy(const HfRow *job, const struct HfQueue *queue);
extern int32 hf_job_max_attempts(const HfRow *job, const struct HfQueue *queue);
extern int64 hf_job_timeout_ms(const HfRow *job, const struct HfQueue *queue);
extern TimestampTz hf_not_before(TimestampTz wanted);
extern void hf_job_requeue(HfCall *call, HfRow *job, TimestampTz run_after, const char *mode);
extern void hf_job_ended(HfCall *call, HfRow *job, const char *kind, const char *ledger_state, const char *reason);
extern void hf_job_gone(HfCall *call, HfRow *job);
extern void hf_job_die(HfCall *call, HfRow *job, const char *reason);
extern void hf_job_failed(HfCall *call, HfRow *job, HfRow *ledger, const HfReport *report, HfDecision *decision);
extern void hf_job_lost(HfCall *call, HfRow *job, HfRow *ledger, HfDecision *decision);
extern bool hf_job_is_past_deadline(const HfCall *call, const HfRow *job);
extern void hf_job_past_deadline(HfCall *call, HfRow *job, HfRow *ledger);
extern bool hf_job_late(HfCall *call, HfRow *job, const char *function);
extern void hf_event_end_of_attempt(HfCall *call, HfEvent *event, const char *kind, const char *result, HfRow *job);

/* ---------------------------------------------------------------- lease.c: leases and who holds them */

extern void hf_lease_init(void);
extern void hf_lease_granted(const pg_uuid_t *lease_id);
extern bool hf_lease_asserted(const HfRow *job);
extern void hf_lease_check_committed(HfCall *call, HfRow *job, const char *function);
extern int64 hf_lease_for(const HfRow *job, const struct HfQueue *queue, int64 asked_ms);
extern void hf_lease_check_asked(const struct HfQueue *queue, int64 asked_ms);

/* ---------------------------------------------------------------- settle.c: reports under a lease */

typedef enum HfFind
{
	HF_FIND_SETTLE,				/* wait for the job's lock; the claim must be committed */
	HF_FIND_ASSERT,				/* wait for the job's lock */
	HF_FIND_SKIP				/* a heartbeat does not wait: held */
} HfFind;

/* One report under a lease: whose it is, and what was found. */
typedef struct HfSettle
{
	HfCall	   *call;
	const char *function;
	int64		job_id;
	pg_uuid_t  *lease_id;
	bool		strict;			/* raise JQ001 rather than answer */
	HfRow	   *job;			/* locked and loaded, or NULL */
	HfRow	   *ledger;
	const struct HfQueue *queue;
	HfHistory  *history;		/* of a lease that is not current */
	const HfReport *report;		/* of a failure, for the evidence */
} HfSettle;

extern void hf_settle_init(HfSettle *s, HfCall *call, const char *function, int64 job_id, pg_uuid_t *lease_id);
extern void hf_settle_release(HfSettle *s);
extern void hf_settle_begin(HfSettle *s, HfCall *call, FunctionCallInfo fcinfo, const char *function);
extern void hf_settle_end(HfSettle *s);
extern const char *hf_settle_find(HfSettle *s, HfFind how);
extern void hf_settle_ledger(HfSettle *s);
extern const char *hf_settle_stale(HfSettle *s, const char *why);
extern const char *hf_settle_repeat(HfSettle *s, bool same);
extern const char *hf_settle_past(HfSettle *s);
extern char *hf_event_detail(const HfEvent *event, const char *key);
extern Jsonb *hf_event_detail_jsonb(const HfEvent *event, const char *key);
extern bool hf_same_jsonb(Jsonb *a, Jsonb *b);

/* ---------------------------------------------------------------- complete.c: the action is done */

typedef void (*HfCompleted) (void *arg, int64 job_id, const char *outcome);
extern const char *hf_complete_one(HfSettle *s, Datum result);
extern void hf_complete_many(HfCall *call, FunctionCallInfo fcinfo, int ids_arg, int leases_arg,
							 HfCompleted put, void *put_arg);

/* ---------------------------------------------------------------- answer.c: sets of named types */

extern void hf_answer_check(TupleDesc desc, const char *columns);
extern ReturnSetInfo *hf_answer_begin(FunctionCallInfo fcinfo, const char *columns);
extern Datum hf_answer_row(FunctionCallInfo fcinfo, const char *columns, Datum *values, bool *nulls);

/* ---------------------------------------------------------------- reconcile.c, and unknown.c for operators */

extern bool hf_ledger_others_unknown(HfCall *call, HfRow *ledger, const HfRow *settled);
extern const char *hf_job_no_more_execution(HfCall *call, const HfRow *job, const struct HfQueue *queue);

/* ---------------------------------------------------------------- operate.c: operators */

extern void hf_detail_operator(HfDetail *detail, const text *reason);

typedef enum HfRedriven
{
	REDRIVEN, REDRIVE_GONE, REDRIVE_COMMITTED, REDRIVE_LIVE, REDRIVE_DECLARED
} HfRedriven;

extern HfRedriven hf_redrive(HfCall *call, HfRow *dead, text *reason, int64 delay_ms, int64 *other);
extern int	hf_ids_of_queue(HfTable *table, Relation index, int32 queue_id, bool (*wanted) (HfRow *row, void *arg),
							void *arg, int64 **ids, int max);

/* ---------------------------------------------------------------- stream.c: breakers */

extern void hf_stream_ended(HfCall *call, int32 queue_id, text *stream, bool success);
extern void hf_streams_flush(HfCall *call);

typedef enum HfGate
{
	HF_GATE_PASS, HF_GATE_PARKED, HF_GATE_STEP_OVER
} HfGate;

extern HfGate hf_stream_gate(HfCall *call, HfRow *job);
extern bool hf_stream_excuses(HfCall *call, HfRow *job);

/* ---------------------------------------------------------------- maintain.c: upkeep, and reading as the owner */

extern void hf_query_as_owner(FunctionCallInfo fcinfo, const char *sql, int nargs, Oid *types, Datum *values,
							  const char *nulls);

/* ---------------------------------------------------------------- worker.c: the optional background worker */

extern void hf_worker_init(void);

/* ---------------------------------------------------------------- pair.c: which attempts belong together; because.c: the sentences */

typedef enum HfVerdict
{
	DUPLICATE_LOG, LEASE_OVERLAP, DISTINCT_INTENT, DUPLICATE_SIDE_EFFECT_RISK, REPEAT_AFTER_SUCCESS, RESUMED,
	DUPLICATE_DISPATCH, DUPLICATE_SCHEDULING, RETRY_WITHOUT_BACKOFF, LEGITIMATE_DELAYED_RETRY, UNEXPLAINED,
	HF_NVERDICTS
} HfVerdict;

extern const char *const hf_verdicts[];

/* the columns of type holdfast.pair */
enum
{
	PAIR_JOB_ID_A, PAIR_NUMBER_A, PAIR_LEASE_ID_A, PAIR_STARTED_AT_A, PAIR_ENDED_AT_A, PAIR_CLOSED_AT_A, PAIR_OUTCOME_A,
	PAIR_CLASS_A, PAIR_ERROR_A, PAIR_WORKER_A, PAIR_KEY_A, PAIR_SCOPE_A, PAIR_VERSION_A, PAIR_ELAPSED_A,
	PAIR_NEXT_NOT_BEFORE_A, PAIR_POLICY_A, PAIR_DELAY_A,
	PAIR_JOB_ID_B, PAIR_NUMBER_B, PAIR_LEASE_ID_B, PAIR_STARTED_AT_B, PAIR_ENDED_AT_B, PAIR_OUTCOME_B,
	PAIR_CLASS_B, PAIR_ERROR_B, PAIR_WORKER_B, PAIR_KEY_B, PAIR_SCOPE_B, PAIR_VERSION_B, PAIR_ELAPSED_B,
	PAIR_GAP, PAIR_VERDICT, PAIR_ALSO, PAIR_CHANGED, PAIR_IDENTICAL, PAIR_MISSING, PAIR_LEAST_DELAY, PAIR_REPEATS,
	PAIR_LAST_REPEAT_AT,
	PAIR_NCOLUMNS
};

/* for hf_answer_check() */
#define PAIR_COLUMNS	"titzzzttutttilztl" "titzzttutttil" "vtaaballz"

extern void hf_pair_init(void);

/* ---------------------------------------------------------------- hint.c: where a claim may begin, and what comes next */

#define HF_NSLOTS	64
#define HF_AHEAD	128			/* entries kept of an index page that was read */
#define HF_MARGIN	(50 * INT64CONST(1000))		/* us */

/* A job's turn within its queue, mode and priority. */
typedef struct HfTurn
{
	TimestampTz run_after;
	int64		job_id;
} HfTurn;

typedef struct HfEntry
{
	HfTurn		turn;
	ItemPointerData place;		/* where its index entry points */
} HfEntry;

typedef struct HfSlot
{
	bool		used;
	bool		fresh;			/* nothing is known yet */
	int32		queue_id;
	bool		reconcile;
	int32		priority;
	uint64		last_use;
	HfTurn		hint;
	HfTurn		least_running;	/* of running jobs below the hint */
	TimestampTz least_lease_end;	/* among them */
	TimestampTz clock;			/* of the scan that set it */
	HfTurn		swept_to;		/* where the net goes on */
	instr_time	swept_at;
	bool		in_transaction; /* moved in this transaction */
	int			nahead;			/* entries ahead, in order: hf_slot_ahead() */
	BlockNumber ahead_block;	/* the index page that they are on */
	XLogRecPtr	ahead_lsn;		/* and its LSN when it was read */
} HfSlot;

typedef enum HfHintMode
{
	HF_HINT_OFF, HF_HINT_ON, HF_HINT_CHECK
} HfHintMode;

extern const HfTurn hf_first_turn;
extern const HfTurn hf_last_turn;
extern HfHintMode hf_hint_mode;
extern void hf_hint_init(void);
extern int	hf_slot_count(void);
extern HfSlot *hf_slot(int i);
extern void hf_slots_check(void);
extern HfSlot *hf_slot_take(int32 queue_id, bool reconcile, int32 priority, TimestampTz now);
extern void hf_slot_lower(HfSlot *slot, HfTurn hint);
extern void hf_slot_move(HfSlot *slot, HfTurn hint, TimestampTz clock);
extern HfEntry *hf_slot_ahead(HfSlot *slot);
extern void hf_hint_pending(int32 queue_id, bool reconcile, int32 priority, TimestampTz run_after, int64 job_id);

static inline int
hf_turn_cmp(HfTurn a, HfTurn b)
{
	if (a.run_after != b.run_after)
		return a.run_after < b.run_after ? -1 : 1;
	return a.job_id < b.job_id ? -1 : a.job_id > b.job_id;
}

static inline bool
hf_slot_is(const HfSlot *slot, int32 queue_id, bool reconcile, int32 priority)
{
	return slot->used && slot->queue_id == queue_id && slot->reconcile == reconcile && slot->priority == priority;
}

/* ---------------------------------------------------------------- front.c: the hint that a new backend begins with */

extern void hf_front_read(HfCall *call, HfSlot *slot);
extern void hf_front_write(HfCall *call, const HfSlot *slot);

/* ---------------------------------------------------------------- span.c: the span of time that some views look at */

extern void hf_span_init(void);

/* ---------------------------------------------------------------- gap.c: priorities without an entry */

extern bool hf_page_stands(Relation index, BlockNumber block, XLogRecPtr lsn);
extern bool hf_gap_empty(HfTable *table, Relation index, int32 queue_id, bool reconcile, int32 above, int32 below);

/* ---------------------------------------------------------------- dispatch.c: jobs in the order of their turn */

typedef struct HfDispatch HfDispatch;

extern HfDispatch *hf_dispatch_begin(HfCall *call, int32 queue_id, bool execute, bool reconcile);
extern HfDispatch *hf_dispatch_begin_whole(HfCall *call, int32 queue_id);
extern HfRow *hf_dispatch_next(HfDispatch *dispatch);
extern void hf_dispatch_keep(HfDispatch *dispatch);	/* the last one stays where it is: others may want it */
extern void hf_dispatch_running_until(HfDispatch *dispatch, TimestampTz lease_end);
extern bool hf_dispatch_end(HfDispatch *dispatch, bool answered_short);
extern int32 hf_dispatch_wait_ms(HfCall *call, const struct HfQueue *queue);

/* ---------------------------------------------------------------- clock.c */

extern TimestampTz hf_clock_now(void);
extern TimestampTz hf_clock_real(void);
extern bool hf_clock_is_frozen(void);
extern void hf_clock_init(void);
extern bool hf_check_timestamp_setting(char **newval, void **extra, GucSource source);

/* ---------------------------------------------------------------- backoff.c: pure functions */

extern int64 hf_backoff_ms(int64 base_ms, double rate, int64 max_ms, int32 failures);
extern int64 hf_jitter_ms(int64 job_id, int32 failures, int64 window_ms);
extern uint64 hf_splitmix64(uint64 seed, uint64 n);

/* ---------------------------------------------------------------- key.c: pure functions
 * text arguments are in the database's encoding; NULL where the SQL value is.
 */
extern void hf_intent_key(const text *subject, const text *action_key, const text *scope,
						  int32 intent_version, pg_uuid_t *key);
extern void hf_effect_key(const pg_uuid_t *parent, const text *effect, pg_uuid_t *key);
extern void hf_key_of(const text *id, pg_uuid_t *key);
extern int64 hf_job_seed(const text *id);
extern int	hf_utf8_length(const text *value);
extern void hf_text_digest(const char *label, const char *string, int len, pg_uuid_t *digest);
extern bytea *hf_payload_digest(Datum payload);	/* SHA-256 of the canonical form of a jsonb */
extern char *hf_hex(const bytea *digest);

/* ---------------------------------------------------------------- args.c: bounds of arguments
 * Each raises 22004 for a NULL that is not allowed and 22023 for a value out
 * of range, naming the argument.
 */
extern text *hf_arg_text(FunctionCallInfo fcinfo, int argno, const char *name, int max_bytes, bool required);
extern int64 hf_arg_interval_ms(FunctionCallInfo fcinfo, int argno, const char *name, int64 min_ms, int64 max_ms);
extern TimestampTz hf_arg_timestamp(FunctionCallInfo fcinfo, int argno, const char *name);
extern int32 hf_arg_int(FunctionCallInfo fcinfo, int argno, const char *name, int32 min, int32 max);
extern int64 hf_arg_bigint(FunctionCallInfo fcinfo, int argno, const char *name);
extern pg_uuid_t *hf_arg_uuid(FunctionCallInfo fcinfo, int argno, const char *name);
extern Size hf_jsonb_digits(Jsonb *jsonb);
extern Jsonb *hf_arg_jsonb(FunctionCallInfo fcinfo, int argno, const char *name, int max_bytes);
extern int hf_arg_choice(FunctionCallInfo fcinfo, int argno, const char *name, const char *const *choices);
extern int64 hf_stored_ms(Datum interval, int64 min_ms);
extern int64 hf_interval_ms(const Interval *value, const char *name, int64 min_ms, int64 max_ms);
extern text *hf_cut_message(text *message);		/* at most HF_MAX_MESSAGE bytes, at a character's boundary */

/* ---------------------------------------------------------------- config.c: settings, as this backend knows them
 * Read from the tables at first use, dropped when one of them changes
 * (trigger config_changed).  Pointers are good until the next call of
 * hf_config_check(), which hf_begin makes.
 */
typedef struct HfQueue
{
	int32		queue_id;
	char	   *queue_name;
	int64		lease_ms;
	int64		timeout_ms;
	int64		grace_ms;
	int64		heartbeat_ms;		/* 0: none */
	char	   *retry_policy;
	int32		max_attempts;		/* 0: the policy's */
	bool		side_effects;
	bool		reconcile_separate;
	bool		paused;
} HfQueue;

extern void hf_config_init(void);
extern void hf_config_check(void);
extern MemoryContext hf_config_context(void);
typedef void (*HfConfigRow) (void *arg, const Datum *values, const bool *nulls);	/* by column enum */
extern void hf_config_scan(HfTableId table, HfConfigRow row, void *arg);
extern const HfQueue *hf_queue_by_name(const text *queue_name);	/* 42704 if there is none */
extern const HfQueue *hf_queue_by_id(int32 queue_id);			/* NULL if there is none */
extern int64 hf_token_floor(void);

/* ---------------------------------------------------------------- policy.c: retry policies and error rules */
typedef struct HfPolicy
{
	const char *name;
	int64		base_ms;
	double		rate;
	int64		max_ms;
	int64		jitter_ms;
	int64		min_ms;
	int32		max_attempts;
	bool		lost_lease_counts;
	int32		max_lost;
	int64		max_reset_ms;
	int64		reconcile_ms;
	int32		reconcile_max;
} HfPolicy;

typedef enum HfDisposition
{
	HF_RETRY, HF_TERMINAL, HF_HONOR_RESET, HF_SUPPRESS
} HfDisposition;

typedef enum HfSideEffect
{
	HF_EFFECT_UNKNOWN, HF_EFFECT_NONE, HF_EFFECT_LANDED
} HfSideEffect;

typedef struct HfRule
{
	const char *name;			/* '(none)' where no rule fits, else policy/class, for the evidence */
	HfDisposition disposition;
	HfSideEffect side_effect;
} HfRule;

extern const HfPolicy *hf_policy(const char *name);	/* NULL if there is none; "default" always is */
extern const HfPolicy *hf_require_policy(const char *name);	/* 42704 if there is none */
extern HfRule hf_rule(const char *policy, const char *error_class);
extern void hf_policy_forget(void);	/* called by config.c when settings changed */

#endif							/* HOLDFAST_H */
