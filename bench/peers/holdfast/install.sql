CREATE EXTENSION holdfast;
SELECT holdfast.create_queue('bench');
