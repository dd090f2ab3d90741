#!/usr/bin/python3
"""Every pair of functions that can meet on one job, at three isolation levels.

    meet.py [FOLDER]    write meet_*.spec beside this file, or into the folder
    meet.py --check     judge expected/meet_*.out by the rule below
    meet.py --three SEED            a spec of three sessions, calls and orders drawn by the seed
    meet.py --check-three SEED OUT  judge what isolationtester printed of it

Two sessions, a and b, each with one call about the same job (or its intent):
b's transaction has its snapshot before a calls, and b calls while a is open;
then a commits or rolls back.  A new call is added to the table CALLS, with the
scenes in which it means something; expected/ is then written by
make expected ONLY="meet_...", and judged by --check.

The rule: what is stored in the end is what one order of the two calls, one
after the other, would have stored; or what a alone stores, if b's call was
refused or stepped aside (a claim steps over a locked row).  After a's rollback
it is what b alone stores, or nothing, if b stepped aside.  The answers are
pinned by expected/.  Of three calls likewise: what is stored is what one order
of those not rolled back would have stored, less those that were refused or
stepped aside.  make soak PART=races runs these.
"""
import itertools
import os
import random
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
EXPECTED = os.path.join(HERE, '..', '..', 'expected')
LEVELS = {'rc': 'READ COMMITTED', 'rr': 'REPEATABLE READ', 'ser': 'SERIALIZABLE'}

# How the one job of a scene has come about; the scene's queue is q, meet its row.
CLAIM = "UPDATE meet SET lease_id = c.lease_id FROM holdfast.claim(q, 'worker') c WHERE c.job_id = meet.job_id;"
FAIL = "PERFORM holdfast.fail(job_id, lease_id, '%s') FROM meet;"
LATER = "PERFORM set_config('holdfast.clock', '2030-01-01 00:50:00+00', true);"
SCENES = {
    'running': ('claimed, in mode execute', CLAIM),
    'doubt': ('claimed again after a timeout, in mode reconcile', CLAIM + FAIL % 'TimeoutError' + LATER + CLAIM),
    'lapsed': ('claimed, and the lease has ended unnoticed', CLAIM),
    'pending': ('waits to be claimed', ''),
    'waiting': ('waits to be reconciled', CLAIM + FAIL % 'TimeoutError'),
    'dead': ('dead, its effect known not to have landed', CLAIM + FAIL % 'ValidationError'),
    'unresolved': ('dead, its effect unknown', CLAIM + "PERFORM holdfast.cancel(job_id, 'why', true) FROM meet;"),
}
CLOCK = {'running': '00:00:10', 'doubt': '00:50:10', 'lapsed': '00:10:00', 'pending': '00:00:10', 'waiting': '00:50:00', 'dead': '00:00:10', 'unresolved': '00:00:10'}

JOB = 'job_id, lease_id'
HELD = 'running doubt lapsed'
EVERY = 'running doubt lapsed pending waiting dead unresolved'
CALLS = {
    # name: (what is answered, call, scenes)
    'complete': ('complete', f'complete({JOB})', HELD),
    'fail': ('decision, reason', f"fail({JOB}, 'Boom', side_effect => 'none')", 'running lapsed'),
    'timeout': ('decision, reason', f"fail({JOB}, 'TimeoutError')", 'running doubt'),
    'snooze': ('decision', f"snooze({JOB}, '9 s')", 'running'),
    'release': ('decision', f'release({JOB})', 'running'),
    'beat': ('outcome', f'heartbeat({JOB})', HELD),
    'assert': ('assert_lease IS NOT NULL AS held', f'assert_lease({JOB})', 'running lapsed'),
    'transition': ('outcome, state', f"ledger_transition({JOB}, 'committed')", 'running'),
    'landed': ('outcome', f"reconcile({JOB}, 'landed')", 'doubt'),
    'not_landed': ('outcome', f"reconcile({JOB}, 'not_landed')", 'doubt'),
    'undetermined': ('outcome', f"reconcile({JOB}, 'undetermined')", 'doubt'),
    'claim': ('attempt_number', "claim(queue_name, 'w')", 'running doubt lapsed pending waiting'),
    'expire': ('settled', 'settle_expired(queue, 100) AS x (settled)', 'running lapsed'),
    'cancel': ('cancel', "cancel(job_id, 'why')", 'running doubt lapsed pending waiting'),
    'force': ('cancel', "cancel(job_id, 'why', true)", 'running doubt'),
    'purge': ('purge_queue', 'purge_queue(queue_name, true)', 'running pending waiting'),
    'enqueue': ('outcome', "enqueue(queue_name, 'send', queue_name)", 'running lapsed pending waiting dead unresolved'),
    'many': ('outcome', "enqueue_batch(queue_name, jsonb_build_array(jsonb_build_object('action_key', 'send', 'subject', queue_name)))", 'pending dead'),
    'redrive': ('outcome', "redrive(meet.job_id, 'why')", 'dead unresolved'),
    'redrive_all': ('redriven, skipped', "redrive_queue(queue_name, 'why')", 'dead unresolved'),
    'settle_landed': ('state', "settle_unknown(key, 'landed', to_jsonb(1), 'why')", 'doubt waiting unresolved'),
    'settle_none': ('state', "settle_unknown(key, 'not_landed', to_jsonb(1), 'why')", 'waiting unresolved'),
    'abandon': ('state', "settle_unknown(key, 'abandoned', to_jsonb(1), 'why')", 'waiting unresolved'),
}
# These may find the job locked and step aside, or answer without waiting.
STEPS_ASIDE = {'claim', 'again', 'beat', 'expire', 'purge', 'redrive_all'}

SETUP = '''
setup
{{
	CREATE TABLE meet (queue_name text, queue integer, job_id bigint, lease_id uuid, key uuid);
	SET holdfast.single_transaction = on;
	SET holdfast.clock = '2030-01-01 00:00:00+00';
	DO $$
	DECLARE
		q	text;
	BEGIN
		IF to_regclass('{marker}') IS NULL THEN	-- errors name jobs and keys: the same ones in every run
			DROP EXTENSION holdfast;
			CREATE EXTENSION holdfast;
			CREATE TABLE {marker} ();
		END IF;
		q := 'meet ' || (SELECT count(*) FROM holdfast.queue);
		PERFORM holdfast.create_queue(q);
		INSERT INTO meet SELECT q, queue_id, e.job_id, NULL, e.idempotency_key FROM holdfast.enqueue(q, 'send', q) e, holdfast.queue WHERE queue.queue_name = q;
		{scene}
	END $$;
	CREATE VIEW met AS
		SELECT coalesce((SELECT string_agg(concat_ws(' ', status, mode, attempt_number, failures, CASE WHEN cancel_requested_at IS NOT NULL THEN 'cancelling' END, CASE WHEN lease_id = meet.lease_id THEN 'held' END), ', ' ORDER BY j.job_id)
				FROM holdfast.job j WHERE j.queue = meet.queue), '-') AS live,
			coalesce((SELECT string_agg(d.reason, ', ') FROM holdfast.dead_job d WHERE d.queue = meet.queue), '-') AS dead,
			(SELECT string_agg(l.state, ', ' ORDER BY l.parent_key NULLS FIRST) FROM holdfast.ledger l WHERE key IN (l.idempotency_key, l.parent_key)) AS ledger,
			(SELECT string_agg(format('%s %s', replace(kind, 'action_', ''), n), ', ' ORDER BY kind) FROM (SELECT kind, count(*) AS n FROM holdfast.event e WHERE e.job_id = meet.job_id GROUP BY kind) k) AS events,
			coalesce((SELECT string_agg(format('%s %s', kind, n), ', ' ORDER BY kind) FROM (SELECT kind, count(*) AS n FROM holdfast.finding f WHERE f.queue = meet.queue GROUP BY kind) k), '-') AS findings
		FROM meet;
}}
teardown {{ DROP VIEW met; DROP TABLE meet; RESET holdfast.clock; RESET holdfast.single_transaction; }}
'''

STATE = '''
session oracle
step state	{ SELECT * FROM met; }
'''


def session(name, scene, level, calls):
    lines = [f'session {name}', f"setup\t\t{{ SET holdfast.clock = '2030-01-01 {CLOCK[scene]}+00'; }}",
             f'step {name}_begin\t{{ BEGIN ISOLATION LEVEL {level}; SELECT FROM holdfast.job; }}']
    for call in calls:
        answer, function, _ = CALLS[call]
        lines.append(f'step {name}_{call}\t{{ SELECT {answer} FROM meet, holdfast.{function}; }}')
    lines.append(f'step {name}_commit\t{{ COMMIT; }}')
    return lines


def spec(scene, short):
    level = LEVELS[short]
    calls = [name for name, call in CALLS.items() if scene in call[2].split()]
    text, made = SCENES[scene]
    a = session('a', scene, level, calls)
    out = [f'# Made by meet.py, which says what must hold.  A job that is {text}; {level}.', SETUP.format(scene=made, marker=f'met_{scene}_{short}')]
    orders = [f'permutation b_begin a_begin a_{a} b_{b} a_commit b_commit state' for a, b in itertools.product(calls, calls)]
    if short == 'rc':
        a.append('step a_back\t{ ROLLBACK; }')
        orders += [f'permutation b_begin a_begin a_{a} b_{b} a_back b_commit state' for a, b in itertools.product(calls, calls)]
        orders += ['permutation a_begin a_commit state'] + [f'permutation a_begin a_{call} a_commit state' for call in calls]
        orders += [f'permutation a_begin a_{a} a_commit b_begin b_{b} b_commit state' for a, b in itertools.product(calls, calls)]
    return '\n'.join(out + a + [''] + session('b', scene, level, calls) + [STATE] + orders) + '\n'


def write(folder):
    for scene in SCENES:
        for short in LEVELS:
            with open(os.path.join(folder, f'meet_{scene}_{short}.spec'), 'w') as f:
                f.write(spec(scene, short))


def outputs(text):
    """Of each permutation: its steps, what was printed, what is stored in the end."""
    for permutation in text.split('\nstarting permutation: ')[1:]:
        steps, rest = permutation.split('\n', 1)
        table = rest[rest.rindex('step state:'):].split('\n')
        row = next(n for n, line in enumerate(table) if line.startswith('live'))
        yield steps, rest, re.sub(r' *\| *', ' | ', table[row + 2]).strip()


def ends_of(scene, short):
    """steps -> (what is stored in the end, whether a call was refused)"""
    with open(os.path.join(EXPECTED, f'meet_{scene}_{short}.out')) as f:
        return {steps: (state, 'ERROR' in rest) for steps, rest, state in outputs(f.read())}


def check():
    """Every end of two calls at once is an end of one order of them."""
    judged = bad = 0
    for scene, short in itertools.product(SCENES, LEVELS):
        orders = ends_of(scene, 'rc')

        def alone(*calls):
            return orders[' '.join(f'{who}_begin {who}_{call} {who}_commit' for who, call in zip('ab', calls)) + ' state'][0]

        for steps, (state, refused) in ends_of(scene, short).items():
            words = steps.split()
            if words[:2] != ['b_begin', 'a_begin']:
                continue
            a, b, aside = words[2][2:], words[3][2:], refused or words[3][2:] in STEPS_ASIDE
            if words[4] == 'a_commit':
                allowed = {alone(a, b), alone(b, a)} | ({alone(a)} if aside else set()) | ({alone(b), orders['a_begin a_commit state'][0]} if refused else set())
            else:
                allowed = {alone(b)} | ({orders['a_begin a_commit state'][0]} if aside else set())
            judged += 1
            if a == b == 'beat':        # heartbeats do not wait, and so each may note what is stale (docs/limits.md)
                state = re.sub(r'stale(_report)? 2', r'stale\1 1', state)
            if state not in allowed:
                bad += 1
                print(f'{scene}, {short}: {steps}', f'  ends as   {state}', *(f'  rather than {x}' for x in sorted(allowed)), sep='\n')
    print(f'{judged} ends judged, {bad} bad')
    return judged > 1000 and bad == 0


def one_after_the_other(calls):
    """The steps of a, then b, then c, as far as there are calls."""
    return ' '.join(f'{who}_begin {who}_{call} {who}_commit' for who, call in zip('abc', calls)) or 'a_begin a_commit'


def drawn(seed):
    """What the seed draws: a scene, a level, some calls, and of every three of them an order of steps."""
    rng = random.Random(seed)
    scene, short = rng.choice(list(SCENES)), rng.choice(list(LEVELS))
    calls = [name for name, call in CALLS.items() if scene in call[2].split()]
    calls = rng.sample(calls, min(5, len(calls)))
    orders = {}
    for three in itertools.product(calls, repeat=3):
        a, b, c = (f'{who}_{call}' for who, call in zip('abc', three))
        end = 'a_back' if rng.random() < 0.3 else 'a_commit'
        middle = rng.choice([f'{a} {b} {c} {end}', f'{a} {b} {end} {c}'])
        orders[f"{' '.join(rng.sample(['a_begin', 'b_begin', 'c_begin'], 3))} {middle} b_commit c_commit state"] = three
    return scene, short, calls, orders


def three(seed):
    scene, short, calls, orders = drawn(seed)
    lines = [f'# Made by meet.py --three {seed}.', SETUP.format(scene=SCENES[scene][1], marker=f'met_{seed}')]
    for who in 'abc':
        lines += session(who, scene, LEVELS[short], calls) + ([f'step {who}_back\t{{ ROLLBACK; }}'] if who == 'a' else []) + ['']
    lines.append(STATE)
    for n in range(4):
        lines += [f'permutation {one_after_the_other(some)} state' for some in itertools.product(calls, repeat=n)]
    return '\n'.join(lines + [f'permutation {order}' for order in orders]) + '\n'


def check_three(seed, text):
    """Every end of three calls at once is an end of one order of those that had an effect."""
    scene, short, _, orders = drawn(seed)
    printed = {steps: (rest, state) for steps, rest, state in outputs(text)}
    bad = len(orders.keys() - printed.keys())
    for steps, calls in orders.items():
        if steps not in printed:
            print(f'{steps}: was not run')
            continue
        rest, state = printed[steps]
        refused = {who for who in 'abc' if re.search(rf'^step {who}_\w+: [^\n]*\n?(?:<waiting[^\n]*\n)?ERROR', rest, re.M)}
        whole = [(who, call) for who, call in zip('abc', calls) if who != 'a' or 'a_back' not in steps]
        needed = [x for x in whole if x[0] not in refused and x[1] not in STEPS_ASIDE]

        def same(end):      # heartbeats do not wait, and so each may note what is stale (docs/limits.md)
            return re.sub(r'stale(_report)? \d', r'stale\1 n', end) if calls.count('beat') > 1 else end

        allowed = {same(printed[one_after_the_other([call for _, call in order]) + ' state'][1])
                   for n in range(len(needed), len(whole) + 1) for order in itertools.permutations(whole, n) if all(x in order for x in needed)}
        if same(state) not in allowed:
            bad += 1
            print(f'seed {seed}, {scene}, {short}: {steps}', f'  ends as   {state}', *(f'  rather than {x}' for x in sorted(allowed)), sep='\n')
    print(f'seed {seed}: {len(printed)} permutations, {len(orders)} ends of three calls judged, {bad} bad')
    return bad == 0


if __name__ == '__main__':
    if sys.argv[1:] == ['--check']:
        sys.exit(0 if check() else 1)
    if sys.argv[1:2] == ['--three']:
        sys.exit(print(three(int(sys.argv[2]))))
    if sys.argv[1:2] == ['--check-three']:
        with open(sys.argv[3]) as f:
            sys.exit(0 if check_three(int(sys.argv[2]), f.read()) else 1)
    write(sys.argv[1] if len(sys.argv) > 1 else HERE)
