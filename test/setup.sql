\set ECHO none
-- Begins every pgTAP file: \i test/setup.sql.  The file ends with
-- SELECT * FROM finish(); ROLLBACK;
--
-- holdfast stays off the search_path: pgTAP, too, has a function fail(text).
\set QUIET on
\set ON_ERROR_ROLLBACK off
\set ON_ERROR_STOP on
\pset pager off
\pset format unaligned
\pset tuples_only on

-- The same under psql as under pg_regress, which has settings of its own.
SET client_min_messages = warning;
SET timezone = 'UTC';
SET datestyle = 'ISO, YMD';
SET intervalstyle = 'postgres';
SET statement_timeout = '5min';

CREATE EXTENSION IF NOT EXISTS pgtap;
CREATE EXTENSION IF NOT EXISTS holdfast;
LOAD 'holdfast';	-- so that a misspelt setting is an error

BEGIN;
-- A test rolls back, and so must settle in the transaction that claims.
SET holdfast.single_transaction = on;
