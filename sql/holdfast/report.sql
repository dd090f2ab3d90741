/* The history of a subject as a page: a chart, its lines, its verdicts. */

CREATE FUNCTION holdfast.html_text(t text) RETURNS text
LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE RETURN
	-- as a reference, since not every encoding has the character
	regexp_replace(replace(replace(replace(replace(replace(t, '&', '&amp;'), '<', '&lt;'), '>', '&gt;'), '"', '&quot;'), '''', '&#39;'),
		E'[\\x01-\\x08\\x0b\\x0c\\x0e-\\x1f\\x7f\\ufffe\\uffff]', '&#xFFFD;', 'g');
COMMENT ON FUNCTION holdfast.html_text(text) IS
	'text as it may stand in HTML or XML, in an attribute too; control characters, which XML does not allow, become a reference to U+FFFD';

CREATE FUNCTION holdfast.report_html(subject text, action_key text DEFAULT NULL, since timestamptz DEFAULT NULL,
	until timestamptz DEFAULT NULL) RETURNS text
LANGUAGE plpgsql STABLE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET jit = off SET datestyle = 'ISO, YMD' AS $$
#variable_conflict use_column
DECLARE
	now			CONSTANT timestamptz := holdfast.clock();
	x0			CONSTANT float8 := 190;		-- of the time axis, in user units; labels are left of it
	x1			CONSTANT float8 := 1180;
	lane		CONSTANT integer := 26;		-- height of a lane
	latest		CONSTANT timestamptz := '270000-01-01 00:00:00+00';	-- on the axis: between times further apart there is no interval
	begins		timestamptz;
	ends		timestamptz;
	per_second	float8;
	workers		text[];
	keys		text[];
	nworkers	integer;
	nkeys		integer;
	attempts	integer;
	chart		text := '';
	verdicts	text;
	lines		text;
	title		text;
BEGIN
	IF report_html.subject IS NULL THEN
		RAISE EXCEPTION USING ERRCODE = '22004', MESSAGE = 'argument "subject" must not be null',
			HINT = 'Give the subject whose history is to be shown.';
	END IF;
	title := format('%s%s', report_html.subject, coalesce(', ' || report_html.action_key, ''));

	-- what the time axis must hold; leases that go on beyond it are cut off
	SELECT min(a.started_at), max(greatest(a.started_at, coalesce(a.ended_at, least(a.lease_expires_at, now)), a.finished_at)),
		   array_agg(DISTINCT coalesce(a.worker_name, '(unknown worker)')), count(*)
		INTO begins, ends, workers, attempts
		FROM holdfast.attempt a
		WHERE a.subject = report_html.subject AND (report_html.action_key IS NULL OR a.action_key = report_html.action_key)
		  AND (report_html.since IS NULL OR a.started_at >= report_html.since) AND (report_html.until IS NULL OR a.started_at < report_html.until);
	nworkers := coalesce(cardinality(workers), 0);
	begins := CASE WHEN begins > latest THEN latest ELSE begins END;
	ends := CASE WHEN ends > latest THEN latest ELSE ends END;
	ends := greatest(ends + (ends - begins) * 0.03, begins + interval '10 ms');
	per_second := (x1 - x0) / extract(epoch FROM ends - begins);

	WITH attempt AS MATERIALIZED (
		SELECT a.*, coalesce(a.worker_name, '(unknown worker)') AS worker,
			   x0 + per_second * (extract(epoch FROM a.started_at) - extract(epoch FROM begins)) AS x,
			   least(x1, x0 + per_second * (extract(epoch FROM CASE WHEN a.outcome = 'lost' THEN coalesce(a.closed_at, a.ended_at) ELSE coalesce(a.finished_at, a.ended_at, least(a.lease_expires_at, now), a.started_at) END) - extract(epoch FROM begins))) AS x_end,
			   CASE WHEN a.ended_at IS NOT NULL THEN least(x1, x0 + per_second * (extract(epoch FROM a.ended_at) - extract(epoch FROM begins))) END AS x_life,
			   CASE WHEN a.lease_expires_at IS NOT NULL THEN least(x1, x0 + per_second * (extract(epoch FROM a.lease_expires_at) - extract(epoch FROM begins))) END AS x_lease,
			   x0 + per_second * (extract(epoch FROM a.closed_at) - extract(epoch FROM begins)) AS x_close,
			   CASE WHEN a.next_not_before IS NOT NULL THEN least(x1, x0 + per_second * (extract(epoch FROM a.next_not_before) - extract(epoch FROM begins))) END AS x_next,
			   array_position(workers, coalesce(a.worker_name, '(unknown worker)')) - 1 AS row
		FROM holdfast.attempt a
		WHERE a.subject = report_html.subject AND (report_html.action_key IS NULL OR a.action_key = report_html.action_key)
		  AND (report_html.since IS NULL OR a.started_at >= report_html.since) AND (report_html.until IS NULL OR a.started_at < report_html.until)),
	state AS MATERIALIZED (
		SELECT e.idempotency_key::text AS key, e.at, e.event_id AS place, e.side_effect_state AS state
		FROM holdfast.events_of(report_html.subject, report_html.action_key, NULL, NULL, NULL, report_html.since, report_html.until) e
		WHERE e.side_effect_state IS NOT NULL
		UNION ALL
		SELECT coalesce(a.idempotency_key, a.source || '/' || a.job_id), coalesce(a.finished_at, a.started_at), a.attempt_number, a.side_effect_state
		FROM attempt a WHERE a.source <> 'native' AND a.side_effect_state IS NOT NULL),
	stretch AS (
		SELECT s.*, lead(s.at) OVER by_key AS upto, s.state IS DISTINCT FROM lag(s.state) OVER by_key AS new
		FROM state s WINDOW by_key AS (PARTITION BY s.key ORDER BY s.at, s.place)),
	named AS (SELECT k.key, row_number() OVER (ORDER BY min(k.at), k.key) - 1 AS row FROM state k GROUP BY k.key),
	piece (layer, svg) AS (
		-- leases behind the bars
		SELECT 1, format('<rect class="lease" x="%s" y="%s" width="%s" height="%s"><title>lease %s until %s</title></rect>', round(a.x::numeric, 1),
			a.row * lane + 33, round(greatest(a.x_lease - a.x, 1)::numeric, 1), lane - 6, holdfast.html_text(left(a.lease_id, 8)), a.lease_expires_at)
		FROM attempt a WHERE a.x_lease IS NOT NULL
		UNION ALL
		SELECT 2, format('<rect class="bar %s" x="%s" y="%s" width="%s" height="%s" rx="2"><title>%s</title></rect>%s',
			CASE WHEN a.outcome IN ('succeeded', 'failed', 'timeout', 'lost', 'snoozed', 'released', 'cancelled') THEN a.outcome ELSE 'open' END,
			round(a.x::numeric, 1), a.row * lane + 37, round(greatest(a.x_end - a.x, 2)::numeric, 1), lane - 14,
			holdfast.html_text(concat_ws(', ', format('job %s attempt %s', a.job_id, coalesce(a.attempt_number::text, '?')),
				CASE a.mode WHEN 'reconcile' THEN 'to find out' END, coalesce(a.outcome, 'open'),
				a.started_at || ' to ' || coalesce(a.finished_at::text, '?'),
				CASE WHEN a.exception_class IS NOT NULL THEN holdfast.error_summary(a.exception_class, a.message, a.outcome = 'timeout', a.timeout_kind,
					a.timeout_limit_ms, a.timeout_ms, a.elapsed_ms) END)),
			format('<text class="number" x="%s" y="%s">%s</text>', round((a.x + 3)::numeric, 1), a.row * lane + 47, coalesce(a.attempt_number::text, '?')))
		FROM attempt a
		UNION ALL
		-- a sign of life after the report, or after the lease's end
		SELECT 3, format('<rect class="life" x="%s" y="%s" width="%s" height="4"><title>%s</title></rect>', round(a.x_end::numeric, 1), a.row * lane + 41,
			round((a.x_life - a.x_end)::numeric, 1), holdfast.html_text(format('attempt %s was heard of until %s', coalesce(a.attempt_number::text, '?'), a.ended_at)))
		FROM attempt a WHERE a.x_life > a.x_end + 1
		UNION ALL
		-- waits: from an attempt's close to the time that was decided
		SELECT 3, format('<line class="wait" x1="%1$s" x2="%2$s" y1="%3$s" y2="%3$s"><title>%4$s</title></line><line class="due" x1="%2$s" x2="%2$s" y1="%5$s" y2="%6$s"/>',
			round(a.x_close::numeric, 1), round(greatest(a.x_next, a.x_close + 1)::numeric, 1), nworkers * lane + 46,
			holdfast.html_text(format('after attempt %s: wait %s by policy %s, not before %s', coalesce(a.attempt_number::text, '?'),
				holdfast.span(a.closed_at, a.next_not_before), coalesce(a.retry_policy, '(not on record)'), a.next_not_before)),
			nworkers * lane + 40, nworkers * lane + 52)
		FROM attempt a WHERE a.x_close IS NOT NULL AND a.next_not_before > a.closed_at AND a.x_close < x1
		UNION ALL
		-- the ledger, a lane for each key
		SELECT 4, format('<rect class="ledger %s" x="%s" y="%s" width="%s" height="%s"><title>%s: %s since %s</title></rect>%s', holdfast.html_text(s.state),
			round(p.x::numeric, 1), (nworkers + 2 + n.row) * lane + 37, round(greatest(p.x_end - p.x, 2)::numeric, 1), lane - 14,
			holdfast.html_text(s.key), holdfast.html_text(s.state), s.at,
			CASE WHEN p.x_end - p.x > length(s.state) * 6 + 8 THEN format('<text class="number" x="%s" y="%s">%s</text>', round((p.x + 4)::numeric, 1),
				(nworkers + 2 + n.row) * lane + 47, holdfast.html_text(s.state)) ELSE '' END)
		FROM (SELECT s.key, s.state, s.at, coalesce(lead(s.at) OVER (PARTITION BY s.key ORDER BY s.at, s.place), ends) AS upto FROM stretch s WHERE s.new) s
		JOIN named n USING (key),
		LATERAL (SELECT greatest(x0, x0 + per_second * (extract(epoch FROM s.at) - extract(epoch FROM begins))) AS x,
						least(x1, x0 + per_second * (extract(epoch FROM s.upto) - extract(epoch FROM begins))) AS x_end) p
		WHERE s.at <= ends
		UNION ALL
		SELECT 5, format('<text class="label" x="180" y="%s">%s</text>', (nworkers + 2 + n.row) * lane + 48, holdfast.html_text('ledger ' || left(n.key, 13))) FROM named n)
	SELECT string_agg(p.svg, E'\n' ORDER BY p.layer, p.svg), (SELECT count(*) FROM named) INTO chart, nkeys FROM piece p;

	SELECT string_agg(format('<circle class="verdict %1$s" cx="%2$s" cy="%3$s" r="9"><title>%4$s</title></circle><text class="mark" x="%2$s" y="%5$s">%6$s</text>',
				CASE WHEN p.verdict IN ('legitimate_delayed_retry', 'resumed', 'distinct_intent') THEN 'good' WHEN p.verdict = 'unexplained' THEN 'unsure' ELSE 'bad' END,
				round(greatest(x0, least(x1, x0 + per_second * (extract(epoch FROM p.started_at_b) - extract(epoch FROM begins))))::numeric, 1), (nworkers + 1) * lane + 46,
				holdfast.html_text(p.verdict || ': ' || p.because), (nworkers + 1) * lane + 50, p.n), E'\n' ORDER BY p.n),
		   string_agg(format('<tr><td>%s</td><td>%s</td><td>%s</td><td class="%s">%s</td><td>%s</td><td>%s</td></tr>', p.n,
				holdfast.html_text(format('job %s attempt %s', p.job_id_a, coalesce(p.attempt_number_a::text, '?'))),
				holdfast.html_text(format('job %s attempt %s', p.job_id_b, coalesce(p.attempt_number_b::text, '?'))),
				CASE WHEN p.verdict IN ('legitimate_delayed_retry', 'resumed', 'distinct_intent') THEN 'good' WHEN p.verdict = 'unexplained' THEN 'unsure' ELSE 'bad' END,
				holdfast.html_text(p.verdict), holdfast.html_text(p.because), holdfast.html_text(array_to_string(p.changed, ', '))), E'\n' ORDER BY p.n)
		INTO lines, verdicts
		FROM (SELECT row_number() OVER (ORDER BY p.started_at_b, p.started_at_a) AS n, p.* FROM holdfast.attempt_pair p
			  WHERE p.subject = report_html.subject AND (report_html.action_key IS NULL OR p.action_key = report_html.action_key)
				AND (report_html.since IS NULL OR p.started_at_b >= report_html.since) AND (report_html.until IS NULL OR p.started_at_b < report_html.until)) p;
	chart := concat_ws(E'\n', chart, lines,
		(SELECT string_agg(format('<text class="label" x="180" y="%s">%s</text>', (w.n - 1) * lane + 48, holdfast.html_text(left(w.name, 26))), E'\n' ORDER BY w.n)
		 FROM unnest(workers) WITH ORDINALITY w (name, n)),
		format('<text class="label" x="180" y="%s">waits</text><text class="label" x="180" y="%s">verdicts</text>', nworkers * lane + 50, (nworkers + 1) * lane + 50),
		(SELECT string_agg(format('<line class="tick" x1="%1$s" x2="%1$s" y1="22" y2="%2$s"/><text class="time" x="%1$s" y="16">%3$s</text>', round((x0 + (x1 - x0) * i / 5)::numeric, 1),
				(nworkers + 2 + nkeys) * lane + 36, to_char(begins + (ends - begins) * i / 5, CASE WHEN i = 0 OR ends - begins > interval '1 day' THEN 'YYYY-MM-DD HH24:MI:SS' ELSE 'HH24:MI:SS.MS' END)), E'\n' ORDER BY i)
		 FROM generate_series(0, 4) i));

	SELECT string_agg(format('<tr><td>%s</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td><td>%s</td><td class="%s">%s</td></tr>',
				to_char(t.at, 'YYYY-MM-DD HH24:MI:SS.MS'), holdfast.html_text(t.job), t.attempt, holdfast.html_text(t.worker), holdfast.html_text(t.lease),
				holdfast.html_text(t.what), holdfast.html_text(t.took), holdfast.html_text(t.decided), holdfast.html_text(t.ledger),
				CASE WHEN t.mark ~ 'OVERLAP|EARLY|STALE|LATE' THEN 'bad' ELSE '' END, holdfast.html_text(t.mark)), E'\n' ORDER BY t.place)
		INTO lines
		FROM holdfast.timeline(report_html.subject, report_html.action_key, since => report_html.since, until => report_html.until)
			WITH ORDINALITY t (at, job, attempt, worker, lease, what, took, decided, ledger, mark, place);

	RETURN format($html$<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"/>
<meta name="viewport" content="width=device-width, initial-scale=1"/>
<title>%1$s</title>
<style>
:root { --page: #fff; --ink: #1b1f24; --soft: #59636e; --line: #d1d9e0; --lease: #e3e8ee; --good: #1a7f37; --bad: #cf222e; --unsure: #9a6700;
	--blue: #0969da; --purple: #8250df; --grey: #818b98; --on: #fff }
@media (prefers-color-scheme: dark) {
	:root { --page: #0d1117; --ink: #e6edf3; --soft: #9198a1; --line: #30363d; --lease: #242b34; --good: #3fb950; --bad: #f85149; --unsure: #d29922;
		--blue: #4493f8; --purple: #ab7df8; --grey: #768390; --on: #0d1117 }
}
body { background: var(--page); color: var(--ink); font: 14px/1.45 system-ui, sans-serif; margin: 24px auto; max-width: 1240px; padding: 0 16px }
h1 { font-size: 20px; margin: 0 } h2 { font-size: 15px; margin: 24px 0 6px }
p { color: var(--soft); margin: 4px 0 12px }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 12px } td, th { border-bottom: 1px solid var(--line); padding: 3px 8px; text-align: left; vertical-align: top }
td.good { color: var(--good) } td.bad { color: var(--bad) } td.unsure { color: var(--unsure) }
svg { display: block; font: 11px system-ui, sans-serif; min-width: 900px }
text { fill: var(--ink) } .time { fill: var(--soft) } .label { text-anchor: end } .number { fill: var(--on); font-size: 10px } .mark { fill: var(--on); text-anchor: middle; font-size: 10px }
.lines td:first-child, .lines td:nth-child(4), .lines td:nth-child(7), .pairs td:nth-child(2), .pairs td:nth-child(3) { white-space: nowrap } .tick { stroke: var(--line) } .life { fill: var(--bad) } .lease { fill: var(--lease); stroke: var(--line) } .wait { stroke: var(--soft); stroke-dasharray: 4 3; stroke-width: 2 } .due { stroke: var(--soft); stroke-width: 2 }
.succeeded, .committed { fill: var(--good) } .failed, .failed_retryable, .failed_terminal { fill: var(--bad) } .timeout, .unknown { fill: var(--unsure) } .lost { fill: var(--purple) }
.open, .started { fill: var(--blue) } .snoozed, .released, .cancelled, .planned { fill: var(--grey) }
.verdict.good { fill: var(--good) } .verdict.bad { fill: var(--bad) } .verdict.unsure { fill: var(--unsure) }
</style>
</head>
<body>
<h1>%1$s</h1>
<p>%2$s</p>
<div class="wide">
<svg viewBox="0 0 1200 %3$s" role="img" aria-label="attempts by worker, their leases, waits, verdicts and the ledger, over time">
%4$s
</svg>
</div>
<h2>Verdicts</h2>
<div class="wide"><table class="pairs"><tr><th>mark</th><th>attempt A</th><th>attempt B</th><th>verdict</th><th>because</th><th>changed</th></tr>
%5$s
</table></div>
<h2>Timeline</h2>
<div class="wide"><table class="lines"><tr><th>at</th><th>job</th><th>attempt</th><th>worker</th><th>lease</th><th>what</th><th>took</th><th>decided</th><th>ledger</th><th>mark</th></tr>
%6$s
</table></div>
</body>
</html>
$html$, holdfast.html_text(title),
		holdfast.html_text(format('%s attempts by %s workers, %s; times are %s. Bars are attempts, by colour of their outcome; behind them are their leases, below them the waits that a policy or a worker chose, the verdict on each pair, and what was known of the side effect.',
			coalesce(attempts, 0), nworkers, CASE WHEN begins IS NULL THEN 'nothing is on record' ELSE format('%s to %s', to_char(begins, 'YYYY-MM-DD HH24:MI:SS'), to_char(ends, 'YYYY-MM-DD HH24:MI:SS')) END,
			current_setting('TimeZone'))),
		(nworkers + 2 + coalesce(nkeys, 0)) * lane + 44, chart, coalesce(verdicts, ''), coalesce(lines, ''));
END
$$;
COMMENT ON FUNCTION holdfast.report_html(text, text, timestamptz, timestamptz) IS
	'the history of a subject as a self-contained page, light or dark as the reader has it: attempts as bars by worker, leases, '
	'waits, verdicts and the ledger''s states over time, and the lines of timeline(); everything in it is escaped; rows of the '
	'queues that the caller may read; psql -At -c "select holdfast.report_html(''...'')" > page.html';
