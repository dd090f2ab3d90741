CREATE EXTENSION holdfast;
SELECT holdfast.create_queue('bench');

-- Arrays for enqueue_batch, as a client would send them.
CREATE TABLE staged (batch bigint PRIMARY KEY, jobs jsonb NOT NULL);
ALTER TABLE staged ALTER jobs SET STORAGE EXTERNAL;
CREATE SEQUENCE next_batch;
