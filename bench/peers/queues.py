"""The peers that speak SQL: holdfast, the hand-written queue, PgQ, and the limit."""
from .base import Peer


class Holdfast(Peer):
    name = title = "holdfast"
    live = "SELECT count(*) FROM holdfast.job"
    vacuum = "holdfast.job, holdfast.ledger, holdfast.event"
    ADD = """SELECT count(*) FROM holdfast.enqueue_batch('bench', (SELECT jsonb_agg(jsonb_build_object('action_key', 'send_email',
             'subject', 'prospect-' || n, 'payload', payload(n)::jsonb)) FROM generate_series(%s::bigint, %s) n))"""

    def fill(self, jobs):
        self.fill_in_steps(jobs, self.ADD)

    def version(self):
        return self.value("SELECT extversion FROM pg_extension WHERE extname = 'holdfast'")


class Handwritten(Peer):
    name, title = "handwritten", "hand-written"
    live = "SELECT count(*) FROM job"
    vacuum = "job"
    ADD = "INSERT INTO job (payload) SELECT payload(n)::jsonb FROM generate_series(%s::bigint, %s) n"

    def fill(self, jobs):
        self.fill_in_steps(jobs, self.ADD)


class Limit(Peer):
    """Committed single-row INSERTs: what the machine's commits allow."""
    name, title = "limit", "the limit"
    live = "SELECT 0"
    vacuum = "row"

    def fill(self, jobs):
        pass
