"""The least that a server with a thread hop can be: uvloop, httptools, msgspec, one queue; no runs, no limits, no checks. What nothing in
Python that keeps authors' code off its loop can beat. argv: port, hop (the loop answers) or send (the thread answers).
"""

import asyncio
import gc
import os
import queue
import sys
import threading
from collections import deque

import httptools
import msgspec
import uvloop


class Input(msgspec.Struct):
    prompt: str


class Output(msgspec.Struct):
    text: str


decode = msgspec.json.Decoder(Input).decode
encode = msgspec.json.Encoder().encode
jobs: queue.SimpleQueue = queue.SimpleQueue()
answers: deque = deque()
woken = False


def work(loop, thread_answers):
    while True:
        connection, body = jobs.get()
        output = encode(Output(decode(body).prompt))
        answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (len(output), output)
        if thread_answers:
            os.write(connection.descriptor, answer)
            continue
        answers.append((connection, answer))
        wake(loop)


def wake(loop):
    global woken
    if not woken:  # one wake-up for many; two threads may both see it unset, which costs a wake-up and no answer
        woken = True
        loop.call_soon_threadsafe(drain)


def drain():
    global woken
    woken = False
    while answers:
        connection, answer = answers.popleft()
        connection.transport.write(answer)


class Connection(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.descriptor = transport.get_extra_info("socket").fileno()
        self.parser = httptools.HttpRequestParser(self)

    def data_received(self, data):
        self.parser.feed_data(data)

    def on_message_begin(self):
        self.body, self.headers = b"", []

    def on_header(self, name, value):
        self.headers.append((name, value))

    def on_body(self, body):
        self.body += body

    def on_message_complete(self):
        jobs.put((self, self.body))


async def main():
    loop = asyncio.get_running_loop()
    for _ in range(2):
        threading.Thread(target=work, args=(loop, sys.argv[2] == "send"), daemon=True).start()
    server = await loop.create_server(Connection, "127.0.0.1", int(sys.argv[1]))
    gc.collect()
    gc.freeze()
    await server.serve_forever()


uvloop.run(main())
