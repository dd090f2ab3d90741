\i test/setup.sql
-- Keys are pure functions with published answers (G11), the same for every attempt (G5); digests tell payloads apart as jsonb does.
-- The answers were computed outside PostgreSQL, from the description alone.
SELECT plan(38);

-- intent keys

SELECT results_eq($$
	SELECT holdfast.intent_key(subject, action_key, scope, intent_version)
	FROM (VALUES
		(1, 'prospect-7ca677ed25d3', 'send_email', 'campaign-9', 1),
		(2, 'prospect-7ca677ed25d3', 'send_email', 'campaign-9', 2),
		(3, 'ab', 'c', NULL, 1),
		(4, 'a', 'bc', NULL, 1)
	) v (n, subject, action_key, scope, intent_version) ORDER BY n$$,
	ARRAY['5a1879b7-62c2-8974-ae6a-00b2feadbc6a', '8e801c4f-96af-809a-b50c-c9d5a129d76e',
		  '82f63520-4560-8af1-9b51-1b1225b11e8a', '3597ddce-010b-85c5-8013-0fe086c47b67']::uuid[],
	'G11: the published intent keys');
SELECT results_eq($$
	SELECT holdfast.intent_key(subject, action_key, scope, intent_version)
	FROM (VALUES
		(1, NULL, NULL, NULL, NULL),
		(2, '', '', '', 0),
		(3, 'a', 'b', '', 1),
		(4, 'a', 'b', NULL, 1),
		(5, U&'zo\00eb', U&'\65e5\672c\8a9e', U&'\+01f642', -2147483648),
		(6, 'x', 'y', 'z', 2147483647),
		(7, repeat('s', 5000), 'a', 'c', 1)
	) v (n, subject, action_key, scope, intent_version) ORDER BY n$$,
	ARRAY['a1bfb65e-c039-83bb-b051-8805143fbc8b', 'cd979b79-1b30-8f1f-8616-8b77c869e728',
		  '967d943f-ad61-8fe7-ad7c-a4082b47c52d', '30bfac2c-67bd-8348-a8b6-63eb23c06c3d',
		  'f4e7d8a2-661f-866e-926e-1d3ed3c39e8e', '988dde64-61d3-8753-9b69-9a50f7d87e08',
		  '3f501d09-8930-84ce-bad0-b8206ecfa840']::uuid[],
	'G11: nulls, empty texts, other scripts, the ends of the version''s range, long texts');
SELECT isnt(holdfast.intent_key('a', 'b', NULL, 1), holdfast.intent_key('a', 'b', '', 1), 'a null is not an empty text');
SELECT isnt(holdfast.intent_key('a', 'b', NULL, NULL), holdfast.intent_key('a', 'b', NULL, 0), 'a null version is not version 0');
SELECT isnt(holdfast.intent_key('a', NULL, 'b', 1), holdfast.intent_key('a', 'b', NULL, 1), 'a null has its place');
SELECT isnt(holdfast.intent_key(U&'\00e9', 'a', NULL, 1), holdfast.intent_key(U&'e\0301', 'a', NULL, 1), 'texts are bytes: what looks alike is not normalized');
SELECT isnt(holdfast.intent_key('A', 'b', NULL, 1), holdfast.intent_key('a', 'b', NULL, 1), 'upper and lower case differ');
SELECT isnt(holdfast.intent_key('a ', 'b', NULL, 1), holdfast.intent_key('a', 'b', NULL, 1), 'a space at the end counts');

-- the description, once more in SQL
CREATE FUNCTION pg_temp.part(value text) RETURNS bytea LANGUAGE sql AS $$
	SELECT coalesce(int4send(octet_length(convert_to(value, 'UTF8'))) || convert_to(value, 'UTF8'), '\xffffffff')
$$;
CREATE FUNCTION pg_temp.uuid8(label text, parts bytea) RETURNS uuid LANGUAGE sql AS $$
	SELECT encode(set_byte(set_byte(d, 6, get_byte(d, 6) & 15 | 128), 8, get_byte(d, 8) & 63 | 128), 'hex')::uuid
	FROM (SELECT substr(sha256(convert_to(label, 'UTF8') || parts), 1, 16)) s (d)
$$;
CREATE TEMPORARY TABLE piece AS
	SELECT * FROM unnest(ARRAY[NULL, '', 'a', 'b', 'ab', 'ba', '1', U&'\00e9', U&'\+01f642', '",', repeat('x', 600)]) value;

SELECT is((SELECT count(*) FROM piece a, piece b, piece c, unnest(ARRAY[NULL, 0, 1, -1, 11]) v
		   WHERE holdfast.intent_key(a.value, b.value, c.value, v)
				 IS DISTINCT FROM pg_temp.uuid8('holdfast intent 1', pg_temp.part(a.value) || pg_temp.part(b.value) || pg_temp.part(c.value) || pg_temp.part(v::text))),
	0::bigint, 'G11: the same, described in SQL');
SELECT is((SELECT count(DISTINCT holdfast.intent_key(a.value, b.value, c.value, v)) FROM piece a, piece b, piece c, unnest(ARRAY[NULL, 0, 1, -1, 11]) v),
	11 * 11 * 11 * 5::bigint, 'G5: different intents have different keys, however their texts run into each other');
SELECT ok(bool_and(substr(key, 15, 1) = '8' AND substr(key, 20, 1) IN ('8', '9', 'a', 'b')) AND count(DISTINCT substr(key, 20, 1)) = 4,
	'keys are UUIDs of version 8')
FROM (SELECT holdfast.intent_key(n::text, 'a', NULL, 1)::text AS key FROM generate_series(1, 200) n) s;

-- keys of texts and of effects

SELECT results_eq($$
	SELECT holdfast.key_of(id) FROM (VALUES (1, 'order-1001'), (2, ''), (3, U&'zo\00eb')) v (n, id) ORDER BY n$$,
	ARRAY['d5c67510-6e7d-8964-aba8-f2c79526a9f6', 'ef150ca2-8734-8b87-b08c-710e5933051a', '81ae8333-aa7e-8f48-9545-1a266bf5fc58']::uuid[],
	'G11: keys of texts');
SELECT is(holdfast.key_of(NULL), NULL, 'key_of is strict: no id is no key');
SELECT is((SELECT count(*) FROM piece WHERE holdfast.key_of(value) <> pg_temp.uuid8('holdfast key 1', pg_temp.part(value))), 0::bigint,
	'G11: the same, described in SQL');
SELECT results_eq($$
	SELECT holdfast.effect_key('5a1879b7-62c2-8974-ae6a-00b2feadbc6a', effect)
	FROM (VALUES (1, 'charge'), (2, 'receipt'), (3, '')) v (n, effect) ORDER BY n$$,
	ARRAY['a4065035-badb-82d2-abd9-b4aa21f0a598', '7090a78f-5be3-8f0a-9584-dc3a876075d3', 'e7d57672-013a-87b6-907b-92485ddab700']::uuid[],
	'G11: keys of effects');
SELECT is(holdfast.effect_key('5A1879B762C28974AE6A00B2FEADBC6A', 'charge'), holdfast.effect_key('5a1879b7-62c2-8974-ae6a-00b2feadbc6a', 'charge'),
	'a parent key counts, not how it is written');
SELECT is(holdfast.effect_key(NULL, 'charge'), NULL, 'effect_key needs a parent');
SELECT is(holdfast.effect_key('5a1879b7-62c2-8974-ae6a-00b2feadbc6a', NULL), NULL, 'effect_key needs an effect');
SELECT is((SELECT count(*) FROM piece WHERE holdfast.effect_key('5a1879b7-62c2-8974-ae6a-00b2feadbc6a', value)
		   <> pg_temp.uuid8('holdfast effect 1', pg_temp.part('5a1879b7-62c2-8974-ae6a-00b2feadbc6a') || pg_temp.part(value))), 0::bigint,
	'G11: the same, described in SQL');
SELECT results_eq($$SELECT substr(sha256(convert_to('holdfast seed 1' || value, 'UTF8')), 1, 8) FROM piece WHERE value IS NOT NULL$$,
	$$SELECT int8send(holdfast.job_seed(value)) FROM piece WHERE value IS NOT NULL$$, 'G11: seeds, described in SQL');

-- digests of payloads

CREATE TEMPORARY TABLE known (payload jsonb, digest text);
INSERT INTO known VALUES
	('{}', 'd46a3ac02656d7d060d64b40894072ff058c48edb5e72e09f8356cc2261cecb1'),
	('[]', 'e65546738c4f243497c80528665bce5697d7fd1fce90d5ec99b2d1d7ac8a7f48'),
	('null', '1464067300035dfd2bb51004b0ba4707eb6910be8fdaaa5cb879a6b45cd28921'),
	('true', 'ec719926fc46afbf61ea6636420dfb5bce30a40d5009ac495492fd0b4cc75062'),
	('"a"', 'e7cd735e081fc002643a91aaad3053942c032768b57572c4cd0bb9ac330a8bc7'),
	('1', '7d640fb450e2c342257d6a0109f95a4b45dc11cd3886fa0f77170292d11dd6a1'),
	('[1]', '077e9e5f8f5f81bad8ed0b309250f1eb24af76224447a0d6a3b5fb007739d076'),
	('-0', 'c6f70787676124aed95469093e8d36c3084eb2f224c6a60ffddf792e8a670676'),
	('1e2', '3a0469581a0494491a9162464cb63c6bf9c701e65633a9de6cda45f5961ffbdf'),
	('0.10', '729bcf737c7c18eb7b530c60a355f892355106478ca3e84cdf68a75158f853b6'),
	('1e30', '18a242b4bae903db7b2e751dd5681d735a408187686c13c33051e0240878528c'),
	('-12.3400e-3', '33e78262fb43633399febe3b2a6959da2ab31e0a91e37bb73b8a370f9207a68d'),
	('""', '1a5c8297608ac949465557ab063dd9d2cead6f2a380d3b8ea84da7c261c7e26a'),
	('{"": ""}', '5e7cefc694d733417b5f972afdfed47303120807b9ec4c435eb3cc90e9977c80'),
	('[[], {}, [[]]]', '450cf1201e58c6d1abf3c5436cce22ff205653bed69657e8fd793630f06ec1ae'),
	('"\ud83d\ude42"', '6b9832d9ff74d2ef8a320697036a2bca647558d21cff7ac5343e9bc62366acb4'),
	('{"b": [1, 2.50, {"c": null}], "a": "zo\u00eb", "aa": false}', 'cb70b5ea0b67cc6c345171a2fb408b2dcfe3de7b969d55dcd2b7396742184e57');
SELECT results_eq('SELECT encode(holdfast.payload_digest(payload), ''hex'') FROM known', 'SELECT digest FROM known', 'G11: digests of payloads');
SELECT is(holdfast.payload_digest(NULL), NULL, 'payload_digest is strict');

CREATE TEMPORARY TABLE spelling (payload jsonb);
INSERT INTO spelling SELECT payload FROM known;
INSERT INTO spelling VALUES
	('1.0'), ('1.00'), ('1e0'), ('10e-1'), ('-1'), ('0'), ('0.0'), ('-0.00'), ('0e5'), ('100'), ('100.000'), ('1E+2'), ('0.1'), ('1e-1'), ('10'), ('01e1'::text::numeric::text::jsonb),
	('"1"'), ('"1.0"'), ('"null"'), ('"true"'), ('false'), ('[null]'), ('[[1]]'), ('[1.0]'), ('[1, 1]'), ('[11]'), ('["1"]'), ('[[], []]'), ('[{}]'), ('[[]]'),
	('{"a": 1}'), ('{"a": 1.0}'), ('{"a": 2, "a": 1}'), ('{"a": [1]}'), ('["a", 1]'), ('{"a": 1, "b": 2}'), ('{"b": 2, "a": 1}'), ('{"a": 2, "b": 1}'),
	('{"aa": 1, "b": 2}'), ('{"b": 2, "aa": 1}'), ('{"a": {"b": 1}}'), ('{"a": {}, "b": 1}'), ('{"a": null}'), ('{"a": "b", "c": "d"}'), ('["a", "b", "c", "d"]'),
	('"\u00e9"'), ('"e\u0301"'), ('"\u000a"'), ('"\\n"'), ('" "'), ('"]"'), ('["]"]'), ('12345678901234567890123456789012345678901234567890.5'),
	('12345678901234567890123456789012345678901234567890.50'), ('1e131000'), ('10e130999'), ('1e-16000'), ('0.0000000000000000000000000000000001');
SELECT is(count(*) FILTER (WHERE (a.payload = b.payload) <> (holdfast.payload_digest(a.payload) = holdfast.payload_digest(b.payload))), 0::bigint,
	'digests are equal exactly where payloads are equal as jsonb')
FROM spelling a, spelling b;
SELECT cmp_ok(count(*), '>', (SELECT 20 + count(*) FROM spelling), 'and many of these are equal')
FROM spelling a, spelling b WHERE a.payload = b.payload;
SELECT is(holdfast.payload_digest('{"a": 1, "b": [1.50, "x"]}'), holdfast.payload_digest('{"b":[1.5,"\u0078"],  "a":9,"a":1e0}'),
	'space, order of keys, escapes, repeated keys and zeros at the end do not count');
SELECT isnt(holdfast.payload_digest('{"a": ["b", "c"]}'), holdfast.payload_digest('{"a": ["bc"]}'), 'texts do not run into each other');
SELECT isnt(holdfast.payload_digest('1'), holdfast.payload_digest('[1]'), 'a number alone is not an array of one');

-- around the sizes at which a digest is passed on in pieces
SELECT is((SELECT count(*) FROM generate_series(0, 1700) n
		   WHERE holdfast.payload_digest(to_jsonb(repeat('x', n))) <> sha256(convert_to('holdfast payload 1"', 'UTF8') || int4send(n) || convert_to(repeat('x', n), 'UTF8'))),
	0::bigint, 'strings of every length up to 1700');
SELECT is(holdfast.payload_digest(to_jsonb(repeat(U&'\00e9', 3000000))),
	sha256(convert_to('holdfast payload 1"', 'UTF8') || int4send(6000000) || convert_to(repeat(U&'\00e9', 3000000), 'UTF8')), 'a string of six million bytes');
SELECT is(holdfast.payload_digest((repeat('[', 2000) || repeat(']', 2000))::jsonb),
	sha256(convert_to('holdfast payload 1' || repeat('[', 2000) || repeat(']', 2000), 'UTF8')), 'two thousand arrays in each other');
SELECT is(holdfast.payload_digest(jsonb_agg(n)), sha256(convert_to('holdfast payload 1[', 'UTF8') || string_agg(convert_to('#', 'UTF8') || pg_temp.part(n::text), '' ORDER BY n) || ']'::bytea),
	'an array of ten thousand numbers')
FROM generate_series(1, 10000) n;
CREATE TEMPORARY TABLE stored (payload jsonb);
INSERT INTO stored SELECT jsonb_build_object('text', string_agg(md5(n::text), '')) FROM generate_series(1, 1000) n;
SELECT is(holdfast.payload_digest(payload), (SELECT holdfast.payload_digest(jsonb_build_object('text', string_agg(md5(n::text), ''))) FROM generate_series(1, 1000) n),
	'a payload read from TOAST')
FROM stored;

-- what these functions may be used for

SELECT is(provolatile, 'i', proname || ' is immutable, so that an index may use it')
FROM pg_proc WHERE pronamespace = 'holdfast'::regnamespace
	AND proname IN ('intent_key', 'key_of', 'effect_key', 'job_seed', 'payload_digest') ORDER BY proname COLLATE "C";
SELECT bag_eq($$SELECT proname::text FROM pg_proc WHERE pronamespace = 'holdfast'::regnamespace AND proparallel = 's'
		AND proname IN ('intent_key', 'key_of', 'effect_key', 'job_seed', 'payload_digest', 'jitter_ms')$$,
	ARRAY['intent_key', 'key_of', 'effect_key', 'job_seed', 'payload_digest', 'jitter_ms'],
	'and may run in parallel workers');
SELECT * FROM finish();
ROLLBACK;
