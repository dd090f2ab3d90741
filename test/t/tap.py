"""Lines of TAP, without a plan, for Relay.pm."""
number = 0


def ok(passed, name, *details):
    global number
    number += 1
    print(f"{'ok' if passed else 'not ok'} {number} - {name}", flush=True)
    for line in details if not passed else ():
        note(str(line).replace('\n', ' ')[:1500])
    return passed


def note(text):
    print(f'# {text}', flush=True)
