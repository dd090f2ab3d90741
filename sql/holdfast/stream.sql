/* Streams: breaker groups of jobs. */

CREATE TABLE holdfast.stream (
	queue				integer		NOT NULL,
	key					text		COLLATE "C" NOT NULL CHECK (key <> ''),
	state				text		COLLATE "C" NOT NULL CHECK (state IN ('closed', 'open', 'trial')),
	consecutive_terminal integer	NOT NULL CHECK (consecutive_terminal >= 0),
	threshold			integer		NOT NULL CHECK (threshold > 0),
	cool_down			interval	NOT NULL,
	opened_at			timestamptz,
	cool_down_ends		timestamptz,
	closed_at			timestamptz,
	trial_job_id		bigint,
	holds				boolean		NOT NULL DEFAULT false,
	CHECK ((state = 'closed') = (cool_down_ends IS NULL)),
	CHECK ((state = 'trial') = (trial_job_id IS NOT NULL)),
	CHECK (state = 'closed' OR opened_at IS NOT NULL),
	PRIMARY KEY (queue, key)
);
COMMENT ON TABLE holdfast.stream IS 'a breaker group: counts jobs of it that ended in failure, in a row';
COMMENT ON COLUMN holdfast.stream.state IS 'closed; open: its jobs are parked; trial: after the cool-down, one job at a time is handed out';
COMMENT ON COLUMN holdfast.stream.opened_at IS 'when the present outage began, or the last one';
COMMENT ON COLUMN holdfast.stream.closed_at IS 'when the last outage ended; null while one lasts';
COMMENT ON COLUMN holdfast.stream.trial_job_id IS 'the job handed out last as a trial';
COMMENT ON COLUMN holdfast.stream.holds IS 'some of its jobs may be parked: maintain() is to look';
SELECT pg_catalog.pg_extension_config_dump('holdfast.stream', '');

CREATE FUNCTION holdfast.define_stream(
	queue_name	text,
	stream		text,
	threshold	integer		DEFAULT 5,
	cool_down	interval	DEFAULT '5 minutes'
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
	id	CONSTANT integer := holdfast.known_queue(define_stream.queue_name);
BEGIN
	PERFORM holdfast.checked_name(define_stream.stream, 'stream');
	IF define_stream.threshold IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = '22004', MESSAGE = 'argument "threshold" must not be null';
	END IF;
	IF define_stream.threshold < 1 THEN
		RAISE EXCEPTION USING ERRCODE = '22023',
			MESSAGE = 'argument "threshold" must be between 1 and 2147483647',
			DETAIL = pg_catalog.format('The value given is %s.', define_stream.threshold),
			HINT = 'Give the number of jobs ending in failure in a row that opens the stream.';
	END IF;
	PERFORM holdfast.interval_ms(define_stream.cool_down, 'cool_down', 1, 315360000000);

	-- the lock of whoever makes the row of a stream (src/stream.c): a job that ends meanwhile waits, and counts in this row
	PERFORM holdfast.be_alone('stream', hashtext(define_stream.stream) # id, true);
	INSERT INTO holdfast.stream (queue, key, state, consecutive_terminal, threshold, cool_down)
		VALUES (id, define_stream.stream, 'closed', 0, define_stream.threshold, define_stream.cool_down)
		ON CONFLICT (queue, key) DO UPDATE SET threshold = excluded.threshold, cool_down = excluded.cool_down;
END
$$;
COMMENT ON FUNCTION holdfast.define_stream(text, text, integer, interval) IS
	'defines a stream of a queue, or changes its figures: threshold jobs that ended in failure in a row open it, and its '
	'jobs are then parked for cool_down (1 ms to 3650 days); state and count of a stream that exists are kept; 42704 if '
	'the queue does not exist; called by the extension''s owner';

CREATE FUNCTION holdfast.resume_stream(queue_name text, stream text, reason text DEFAULT NULL) RETURNS void
LANGUAGE C AS 'MODULE_PATHNAME', 'holdfast_resume_stream';
COMMENT ON FUNCTION holdfast.resume_stream(text, text, text) IS
	'closes a stream now, its count from 0, and brings its parked jobs back, due now; give_up_at keeps the time that was '
	'spent; called by the queue''s operators';

CREATE FUNCTION holdfast.settle_streams(queue integer, max integer) RETURNS bigint
LANGUAGE C VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'holdfast_settle_streams';
COMMENT ON FUNCTION holdfast.settle_streams(integer, integer) IS
	'internal: park the pending jobs of the queue''s open streams, bring back those of closed ones; how many';

/*
 * Jobs before streams, in the order of locks.  A stream that has closed is
 * forgotten once nothing was left to bring back, and no transaction is left
 * that was under way when it closed: a claim may have parked jobs in it.
 */
CREATE FUNCTION holdfast.settle_all_streams() RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
	at_once	CONSTANT integer := 10000;
	q		integer;
	moved	bigint;
	total	bigint := 0;
BEGIN
	FOR q IN SELECT DISTINCT s.queue FROM holdfast.stream s WHERE s.holds ORDER BY 1 LOOP
		moved := holdfast.settle_streams(q, at_once);
		total := total + moved;
		UPDATE holdfast.stream s SET holds = false
		WHERE s.queue = q AND s.holds AND s.state = 'closed' AND moved = 0
		  AND s.closed_at < coalesce(holdfast.oldest_writer(), 'infinity');
	END LOOP;
	RETURN total;
END
$$;
COMMENT ON FUNCTION holdfast.settle_all_streams() IS 'internal: settle_streams for every queue that may need it; how many jobs were moved';
