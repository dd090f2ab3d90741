#!/usr/bin/python3
"""A provider of side effects that misbehaves when told to.  docs/demo.md has its protocol.

    provider.py [--port N] [--log FILE]

It is naive on purpose: a request whose Idempotency-Key it has seen lands again, and is logged
again.  So whatever keeps an effect from landing twice, it is not the provider.
"""
import argparse
import datetime
import http.server
import json
import threading
import time


class Provider:
    """What has landed, what is under way, and how to misbehave next."""

    def __init__(self, log_file):
        self.lock = threading.Lock()
        self.log_file = log_file
        self.lines = []
        self.under_way = []     # keys of requests whose effect is not decided yet
        self.script = {}        # subject -> steps, one for each request to come

    def log(self, what, **fields):
        line = json.dumps({"at": datetime.datetime.now(datetime.timezone.utc).isoformat(), "what": what, **fields})
        with self.lock:
            self.lines.append(line)
            self.log_file.write(line + "\n")
            self.log_file.flush()

    def next_step(self, subject):
        with self.lock:
            steps = self.script.get(subject)
            return steps.pop(0) if steps else {}

    def state(self, key):
        """Landed is final.  Unknown is final too: no request with this key is under way."""
        with self.lock:
            effects = [line for line in map(json.loads, self.lines)
                       if line["what"] == "landed" and line["idempotency_key"] == key]
            return ("landed", effects) if effects else ("in_progress" if key in self.under_way else "unknown", [])

    def perform(self, key, request):
        """Do what the subject's next step says: returns status and reply, status 0 for a dropped connection."""
        self.under_way.append(key)
        try:
            self.log("received", **request)
            if "@" not in str(request["payload"].get("to")):
                return 422, {"error": "payload.to is not an address"}
            step = self.next_step(request["subject"])
            time.sleep(step.get("before", 0))
            if step.get("effect", True):
                self.log("landed", **request)
        finally:
            self.under_way.remove(key)
        time.sleep(step.get("after", 0))
        return step.get("answer", 200), {"retry_after": step["retry_after"]} if "retry_after" in step else {}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        key, body = self.headers.get("Idempotency-Key"), self.body()
        if self.path != "/effects" or not key or not isinstance(body, dict) \
                or not isinstance(body.get("payload"), dict) or not body.get("subject"):
            return self.answer(400, {"error": "POST /effects wants an Idempotency-Key, a subject and a payload"})
        request = {"idempotency_key": key, "fencing_token": self.headers.get("Fencing-Token"), **body}
        status, reply = self.server.provider.perform(key, request)
        self.server.provider.log("answered", status=status, **request)
        self.answer(status, reply)

    def do_GET(self):
        if self.path == "/log":
            return self.reply(200, "".join(line + "\n" for line in self.server.provider.lines), "application/x-ndjson")
        if not self.path.startswith("/effects/"):
            return self.answer(404, {"error": "GET /effects/KEY or GET /log"})
        state, effects = self.server.provider.state(self.path[len("/effects/"):])
        self.answer(404 if state == "unknown" else 200, {"state": state, "effects": effects})

    def do_PUT(self):
        if self.path != "/script":
            return self.answer(404, {"error": "PUT /script"})
        self.server.provider.script = self.body()
        self.answer(200, {})

    def body(self):
        try:
            return json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or b"null")
        except ValueError:
            return None

    def answer(self, status, reply):
        if status:
            self.reply(status, json.dumps(reply), "application/json", reply.get("retry_after"))

    def reply(self, status, text, content_type, retry_after=None):
        try:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(text.encode())))
            if retry_after is not None:
                self.send_header("Retry-After", str(retry_after))
            self.end_headers()
            self.wfile.write(text.encode())
        except ConnectionError:
            pass    # the worker hung up, or was killed

    def log_message(self, *args):
        pass        # the log is what perform() and do_POST() write


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=0, help="0, the default: any free one")
    parser.add_argument("--log", default="/dev/null", help="a file that gets the log too")
    options = parser.parse_args()
    with open(options.log, "a", encoding="utf-8") as log_file, Server(("127.0.0.1", options.port), Handler) as server:
        server.provider = Provider(log_file)
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    main()
