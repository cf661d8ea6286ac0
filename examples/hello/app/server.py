#!/usr/bin/env python3
"""A web server that takes its listening socket from whoever starts it, as sd_listen_fds(3) describes it."""

import os
import signal
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FIRST_LISTEN_FD = 3


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        body = b"ok\n" if self.path == "/health" else os.environ.get("GREETING", "hello").encode() + b"\n"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args):
        pass


def main():
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or int(os.environ.get("LISTEN_FDS", "0")) < 1:
        sys.exit("no listening socket was handed over; run this under Baton or systemd")
    server = ThreadingHTTPServer(("", 0), Handler, bind_and_activate=False)
    server.socket.close()
    server.socket = socket.socket(fileno=FIRST_LISTEN_FD)
    # Whoever asks for an end waits for the answers under way; shutdown() must not run in the serving thread.
    server.daemon_threads = False
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print("serving on", server.socket.getsockname(), flush=True)
    server.serve_forever()
    server.server_close()


main()
