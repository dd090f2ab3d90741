/* Names for intents and effects: pure functions with published answers. */

-- Keys are made of UTF-8, so an encoding that cannot be converted would give keys that no other language agrees with.
DO $install$
BEGIN
	IF pg_catalog.getdatabaseencoding() OPERATOR(pg_catalog.<>) 'UTF8' AND NOT EXISTS (
		SELECT FROM pg_catalog.pg_conversion c
		WHERE c.condefault
		  AND c.connamespace OPERATOR(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace
		  AND c.conforencoding OPERATOR(pg_catalog.=) pg_catalog.pg_char_to_encoding(pg_catalog.getdatabaseencoding())
		  AND c.contoencoding OPERATOR(pg_catalog.=) pg_catalog.pg_char_to_encoding('UTF8')
	) THEN
		RAISE EXCEPTION USING ERRCODE = '0A000',
			MESSAGE = pg_catalog.format('encoding "%s" cannot be converted to UTF8', pg_catalog.getdatabaseencoding()),
			DETAIL = 'Idempotency keys are made of the UTF-8 form of their texts.',
			HINT = 'Create the extension in a database with encoding UTF8.';
	END IF;
END
$install$;

CREATE FUNCTION holdfast.intent_key(subject text, action_key text, scope text, intent_version integer) RETURNS uuid
LANGUAGE C IMMUTABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'holdfast_intent_key';
COMMENT ON FUNCTION holdfast.intent_key(text, text, text, integer) IS
	'idempotency key of an intent, the same in every language; a null is a value of its own';

CREATE FUNCTION holdfast.key_of(id text) RETURNS uuid
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'holdfast_key_of';
COMMENT ON FUNCTION holdfast.key_of(text) IS
	'idempotency key made of a key that the business has already';

CREATE FUNCTION holdfast.effect_key(idempotency_key uuid, effect text) RETURNS uuid
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'holdfast_effect_key';
COMMENT ON FUNCTION holdfast.effect_key(uuid, text) IS
	'idempotency key of one effect of an action that has several';

CREATE FUNCTION holdfast.payload_digest(payload jsonb) RETURNS bytea
LANGUAGE C IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'holdfast_payload_digest';
COMMENT ON FUNCTION holdfast.payload_digest(jsonb) IS
	'SHA-256 by which payloads are compared: equal exactly where the values are equal as jsonb';
