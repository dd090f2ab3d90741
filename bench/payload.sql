-- The payload of every peer and case: 200 bytes of JSON, never the same twice.
CREATE FUNCTION payload(n bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN '{"to": "' || lpad(n::text, 12, '0') || '@example.com", "text": "' || repeat('x', 154) || '"}';
