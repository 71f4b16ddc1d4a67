"""mosquitto's library with a keep-alive of 0 against the gateway's MQTT server: PORT, PROTOCOL (4 or 5).

Subscribes as a display, prints the first message and ends. Not a second connection: one that the server closes fails it.
"""

import ctypes
import sys
import time

PORT, PROTOCOL = (int(argument) for argument in sys.argv[1:3])
SECRET = b"000102030405060708090a0b0c0d0e0f"
FILTER = b"vitals/v1/#"
PATIENCE = 60
# mosquitto.h: MOSQ_OPT_PROTOCOL_VERSION, whose values are those on the wire.
PROTOCOL_VERSION = 1


class Message(ctypes.Structure):
    _fields_ = [
        ("mid", ctypes.c_int), ("topic", ctypes.c_char_p), ("payload", ctypes.c_void_p), ("payloadlen", ctypes.c_int),
        ("qos", ctypes.c_int), ("retain", ctypes.c_bool),
    ]


OnConnect = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int)
OnMessage = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(Message))
library = ctypes.CDLL("libmosquitto.so.1")
library.mosquitto_new.restype = ctypes.c_void_p
got = []


@OnConnect
def connected(client, _, code):
    if code == 0:
        library.mosquitto_subscribe(ctypes.c_void_p(client), None, FILTER, 1)


@OnMessage
def message(_client, _, message):
    got.append(ctypes.string_at(message.contents.payload, message.contents.payloadlen).decode())


library.mosquitto_lib_init()
client = ctypes.c_void_p(library.mosquitto_new(None, ctypes.c_bool(True), None))
assert library.mosquitto_int_option(client, PROTOCOL_VERSION, PROTOCOL) == 0
assert library.mosquitto_username_pw_set(client, b"user-display", SECRET) == 0
library.mosquitto_connect_callback_set(client, connected)
library.mosquitto_message_callback_set(client, message)
assert library.mosquitto_connect(client, b"127.0.0.1", PORT, 0) == 0
end = time.monotonic() + PATIENCE
while not got:
    assert time.monotonic() < end, "no message"
    ended = library.mosquitto_loop(client, 1000, 1)
    assert ended == 0, f"the connection ended: {ended}"
print(got[0])
library.mosquitto_disconnect(client)
