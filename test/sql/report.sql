\i test/setup.sql
\i test/tools.sql
-- The page about a subject: well-formed, self-contained, and nothing that a user wrote is markup.
SELECT plan(29);

SELECT pg_temp.at('00:00:00') \g /dev/null
CREATE FUNCTION pg_temp.page(call text) RETURNS xml LANGUAGE plpgsql AS $$
DECLARE
	page	text;
BEGIN
	EXECUTE format('SELECT holdfast.report_html(%s)', call) INTO page;
	RETURN xmlparse(DOCUMENT page);
END
$$;
CREATE FUNCTION pg_temp.count(page xml, path text) RETURNS integer LANGUAGE sql AS $$ SELECT cardinality(xpath($2, $1)) $$;
CREATE FUNCTION pg_temp.texts(page xml, path text) RETURNS text LANGUAGE sql AS $$
	SELECT string_agg(t::text, '|' ORDER BY n) FROM unnest(xpath($2, $1)) WITH ORDINALITY x (t, n)
$$;

SELECT is(holdfast.html_text(E'<a href="x">&\'\x01\t\n'), '&lt;a href=&quot;x&quot;&gt;&amp;&#39;&#xFFFD;' || E'\t\n', 'markup, quotes and control characters');
SELECT lives_ok($$SELECT pg_temp.page('''nobody''')$$, 'a subject of whom nothing is on record has a page that says so');
SELECT matches(holdfast.report_html('nobody'), 'nothing is on record', 'in words');
SELECT throws_ok('SELECT holdfast.report_html(NULL)', '22004', NULL, 'a null is refused');

-- names that are markup, wherever a name can be given

\set evil '</title><script>alert(1)</script>"\' onload=x &amp; <![CDATA[ ]]> %s %1$s'
SELECT holdfast.define_retry_policy('p<b>&"''', '1 s', jitter_window => '0', min_delay => '500 ms', reconcile_delay => '1 s') \g /dev/null
SELECT holdfast.create_queue('mail', lease => '3 s', timeout => '2 s', grace => '500 ms', retry_policy => 'p<b>&"''') \g /dev/null
SELECT holdfast.enqueue('mail', :'evil' || 'action', :'evil', correlation_id => :'evil') \g /dev/null
SELECT pg_temp.at('00:00:01') \g /dev/null
SELECT job_id, lease_id FROM holdfast.claim('mail', :'evil' || 'worker') \gset
SELECT pg_temp.at('00:00:02.500') \g /dev/null
SELECT holdfast.fail(:job_id, :'lease_id', :'evil', :'evil' || E'\x01\x1f') \g /dev/null
SELECT pg_temp.at('00:00:04') \g /dev/null
SELECT lease_id AS old_lease FROM holdfast.claim('mail', 'w2') \gset
SELECT pg_temp.at('00:00:08') \g /dev/null
SELECT count(*) FROM holdfast.claim('mail', 'w3') \g /dev/null
SELECT pg_temp.at('00:00:09.500') \g /dev/null
SELECT lease_id FROM holdfast.claim('mail', 'w3') \gset
SELECT pg_temp.at('00:00:10') \g /dev/null
SELECT holdfast.reconcile(:job_id, :'old_lease', 'landed') \g /dev/null
SELECT holdfast.snooze(:job_id, :'lease_id', '1 s', :'evil') \g /dev/null
SELECT pg_temp.at('00:00:11') \g /dev/null
SELECT lease_id FROM holdfast.claim('mail', 'w3') \gset
SELECT holdfast.reconcile(:job_id, :'lease_id', 'landed', to_jsonb(:'evil'::text)) \g /dev/null
SELECT holdfast.import_attempts(:'evil', jsonb_build_array(jsonb_build_object('job_id', :'evil', 'subject', :'evil', 'action_key', :'evil' || 'action',
	'started_at', '2030-01-01 00:00:03+00', 'finished_at', '2030-01-01 00:00:03.100+00', 'worker_name', :'evil' || 'elsewhere', 'lease_id', :'evil',
	'outcome', 'failed', 'exception_class', :'evil', 'message', :'evil', 'retry_policy', :'evil', 'stop_reason', :'evil', 'final', true,
	'side_effect_state', 'unknown', 'idempotency_key', :'evil', 'next_not_before', '2030-01-01 00:00:05+00'))) \g /dev/null

CREATE TEMPORARY TABLE page AS SELECT pg_temp.page(quote_literal(:'evil')) AS page, holdfast.report_html(:'evil') AS text;
SELECT is((SELECT count(*) FROM page), 1::bigint, 'the page is well-formed XML, and so HTML without surprises');
SELECT is(pg_temp.count(page, '//script'), 0, 'no script') FROM page;
SELECT is(pg_temp.count(page, '//@*[starts-with(name(), "on")]'), 0, 'no handler') FROM page;
SELECT is(pg_temp.count(page, '//*[name() = "b" or name() = "iframe" or name() = "img" or name() = "link" or name() = "object"]'), 0, 'no element that a name brought, or that fetches anything') FROM page;
SELECT is(pg_temp.count(page, '//@href | //@src | //@action | //@style'), 0, 'no reference') FROM page;
SELECT unalike(text, '%url(%', 'nor in the style') FROM page;
SELECT unalike(text, '%@import%', 'nor an import') FROM page;
SELECT is(pg_temp.texts(page, '/html/head/title/text()'), pg_temp.texts(page, '/html/body/h1/text()'), 'the subject is the title') FROM page;
SELECT is((xpath('string(/html/body/h1)', page))[1]::text, replace(replace(replace(:'evil', '&', '&amp;'), '<', '&lt;'), '>', '&gt;'), 'letter by letter') FROM page;
SELECT is((SELECT array_agg(DISTINCT name ORDER BY name) FROM page, xmltable('//*' PASSING page COLUMNS name text PATH 'name()')),
	'{body,circle,div,h1,h2,head,html,line,meta,p,rect,style,svg,table,td,text,th,title,tr}', 'these elements and no others');
SELECT matches(text, 'prefers-color-scheme: dark', 'light and dark') FROM page;

-- the chart

SELECT is(pg_temp.count(page, '//rect[contains(@class, "bar ")]'), 5, 'a bar for each attempt') FROM page;
SELECT is(pg_temp.texts(page, '//rect[contains(@class, "bar ")]/@class'), 'bar failed|bar failed|bar lost|bar snoozed|bar succeeded', 'by its outcome') FROM page;
SELECT is(pg_temp.count(page, '//rect[@class = "lease"]'), 4, 'a lease behind each that has one on record') FROM page;
SELECT is(pg_temp.count(page, '//rect[@class = "life"]'), 1, 'the report that came after the lease''s end') FROM page;
SELECT is(pg_temp.count(page, '//line[@class = "wait"]'), pg_temp.count(page, '//line[@class = "due"]'), 'waits end when the next attempt was due') FROM page;
SELECT is(pg_temp.texts(page, '//line[@class = "wait"]/title/text()') LIKE '%after attempt 1: wait 1 s by policy p&lt;b&gt;&amp;"''%', true, 'and name their policy') FROM page;
SELECT is(pg_temp.count(page, '//circle'), (SELECT count(*)::integer FROM holdfast.attempt_pair p WHERE p.subject = :'evil'), 'a mark for each pair') FROM page;
SELECT cmp_ok(pg_temp.count(page, '//circle[contains(@class, "bad")]'), '>', 0, 'the bad ones are red') FROM page;
SELECT matches(pg_temp.texts(page, '//rect[contains(@class, "ledger ")]/@class'), 'ledger started.*ledger unknown.*|ledger unknown.*ledger started', 'what the ledger said, stretch by stretch') FROM page;
SELECT is((SELECT bool_and(x >= 190 AND x + w <= 1190) FROM page, xmltable('//rect' PASSING page COLUMNS x float8 PATH '@x', w float8 PATH '@width')), true, 'all of it within the chart') ;
SELECT is(pg_temp.count(page, '//table[@class = "lines"]/tr') - 1, (SELECT count(*)::integer FROM holdfast.timeline(:'evil')), 'and below it every line of the timeline') FROM page;

-- G13

SELECT FROM holdfast.import_attempts('edge', '[{"job_id": "1", "subject": "edge", "action_key": "a", "started_at": "4713-01-01T00:00:00Z BC", "finished_at": "294276-12-31T23:59:59.999999Z"},
	{"job_id": "1", "subject": "edge", "action_key": "a", "started_at": "294276-12-31T23:59:59.999999Z", "next_not_before": "294276-12-31T23:59:59.999999Z"}]') \g /dev/null
SELECT is(pg_temp.count(xmlparse(DOCUMENT holdfast.report_html('edge')), '//rect[contains(@class, "bar ")]'), 2, 'attempts from where times begin to where they end');

CREATE ROLE regress_holdfast_reader;
SELECT holdfast.create_queue('other'), holdfast.grant_queue('other', 'regress_holdfast_reader', 'reader') \g /dev/null
SET LOCAL ROLE regress_holdfast_reader;
SELECT holdfast.report_html(:'evil') AS seen \gset
RESET ROLE;
SELECT matches(:'seen'::text, 'nothing is on record', 'G13: a reader of another queue sees nothing');
SELECT holdfast.grant_queue('mail', 'regress_holdfast_reader', 'reader') \g /dev/null
SET LOCAL ROLE regress_holdfast_reader;
SELECT holdfast.report_html(:'evil') AS seen \gset
RESET ROLE;
SELECT is(pg_temp.count(xmlparse(DOCUMENT :'seen'), '//rect[contains(@class, "bar ")]'), 4, 'G13: a reader of the queue its attempts, and not those of elsewhere');

SELECT * FROM finish();
ROLLBACK;
