"""The server's clock steps, under load; for the soak part clock.

	CLOCK_FILE, CLOCK_STEPS, SEED in the environment, and those of libpq

A clock that jumps forward ends leases early: two workers may then be at one job, and the fencing token and the record
tell them apart, so that what lands twice is not looked at here.  Prints TAP without a plan.
"""
import os
import random
import sys
import time

import psycopg
from psycopg.rows import dict_row

for folder in ('t', 'model'):
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), '..', folder))
from fold import Oracle
import load
from tap import note, ok

STEPS, SEED = int(os.environ['CLOCK_STEPS']), int(os.environ['SEED'])
DAY = 24 * 3600
RULES = {
    'G8: no lease was taken away before its end, by the clock that gave it':
        "SELECT job_id, at, detail FROM holdfast.finding WHERE kind = 'lost_lease' AND (detail ->> 'noticed_after_ms')::bigint < 0",
    'G1: no lease was given twice':
        "SELECT lease_id FROM holdfast.event_all WHERE kind = 'action_attempt_started' GROUP BY 1 HAVING count(*) > 1",
    'G1: an attempt began only after the one before it was over, on record, or lost':
        """SELECT job_id, attempt_number FROM (SELECT job_id, attempt_number, kind, lag(kind) OVER (PARTITION BY job_id ORDER BY event_id) AS before
            FROM holdfast.event_all WHERE kind IN ('action_attempt_started', 'action_attempt_failed', 'action_attempt_lost', 'action_snoozed',
                'action_released', 'action_reconciled', 'action_cancelled', 'action_redriven')) x
            WHERE kind = 'action_attempt_started' AND before = 'action_attempt_started'""",
    'no fencing token is at or below one that was handed out before for the job':
        """SELECT job_id, attempt_number FROM (SELECT job_id, attempt_number, fencing_token, lag(fencing_token) OVER
            (PARTITION BY job_id ORDER BY event_id) AS before FROM holdfast.event_all WHERE kind = 'action_attempt_started') x WHERE fencing_token <= before""",
    'event times of a job never go back':
        """SELECT job_id, event_id FROM (SELECT job_id, event_id, at, lag(at) OVER (PARTITION BY job_id ORDER BY event_id) AS before
            FROM holdfast.event_all WHERE kind NOT IN ('action_stale_report', 'action_duplicate_report', 'action_duplicate_enqueue')) x WHERE at < before""",
    'G3: no attempt was put off to a time that was past when it was decided':
        """SELECT job_id, kind FROM holdfast.event_all WHERE kind IN ('action_retry_scheduled', 'action_reconcile_scheduled', 'action_snoozed')
            AND delay_ms < 1""",
}


def set_clock(offset):
    """Seconds from the true time on."""
    with open(os.environ['CLOCK_FILE'] + '.new', 'w') as f:
        f.write(f'{offset:+d}s\n')
    os.chmod(f.name, 0o644)
    os.rename(f.name, os.environ['CLOCK_FILE'])


def steps(rng):
    """Offsets from the true time, each 1 s to 24 h from the one before, and never more than two days off."""
    offset = 0
    for _ in range(STEPS):
        step = round(DAY ** rng.random()) * rng.choice([-1, 1])
        offset += -step if abs(offset + step) > 2 * DAY else step
        yield offset


def main():
    rng = random.Random(SEED)
    note(f'SEED={SEED} CLOCK_STEPS={STEPS}')
    with psycopg.connect(autocommit=True) as c:
        c.execute('CREATE EXTENSION holdfast')
        c.execute(load.SETUP)
        world = load.World(SEED, lambda: '')
        account = load.Account(world, Oracle(), '')
        world.start(producers=2)
        latest, skew = 0, 0
        for n, offset in enumerate(steps(rng), 1):
            set_clock(offset)
            latest = max(latest, offset)
            skew = max(skew, abs(c.execute('SELECT extract(epoch FROM clock_timestamp())::float8').fetchone()[0] - time.time() - offset))
            time.sleep(0.1 + 0.4 * rng.random())
            if n % 20 == 0 or n == STEPS:
                account.judged(f'step {n}')
        ok(skew < 1, "the server's clock followed", skew)
        set_clock(latest + 60)					# sane again: what was put off to a time that the clock has shown is due
        load.drain(world, '')
        account.judged('at the end, of the whole history or 20,000 jobs of it', everything=True)
        ok(not world.problems, 'no error, no wrong answer', *world.problems[:10])
    with psycopg.connect(row_factory=dict_row) as c:
        for name, sql in RULES.items():
            rows = c.execute(sql).fetchall()
            ok(not rows, name, len(rows), *rows[:5])
        lost, stale = c.execute("""SELECT count(*) FILTER (WHERE kind = 'lost_lease') AS lost, count(*) FILTER (WHERE kind = 'stale') AS stale
            FROM holdfast.finding""").fetchone().values()
    note(f'figures: {STEPS} steps, {len(world.acks)} transitions acknowledged, {account.lost} lost, {account.doubled} doubled, '
         f'{lost} leases lost, {stale} stale reports')


main()
