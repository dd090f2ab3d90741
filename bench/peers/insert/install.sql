-- What INSERT ... SELECT does with rows that are in a table already.
CREATE TABLE keyed (key uuid PRIMARY KEY, payload jsonb NOT NULL);
CREATE TABLE plain (key uuid NOT NULL, payload jsonb NOT NULL);
CREATE TABLE staged (batch bigint NOT NULL, key uuid NOT NULL, payload jsonb NOT NULL);
CREATE INDEX ON staged (batch);
CREATE SEQUENCE next_batch;
