-- The physical limit: a row of the same payload, no index, one commit each.
CREATE TABLE row (payload jsonb NOT NULL);
