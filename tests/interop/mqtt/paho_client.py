"""Eclipse paho against the gateway's MQTT server: PORT, PORT_SHORT (Server Keep Alive 2 s, Receive Maximum 2), PROTOCOL (4 or 5).

What is published with payload `refuse` the pipeline behind the server refuses; all else it stores.
"""

import queue
import sys
import threading
import time

import paho.mqtt.client as mqtt
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.subscribeoptions import SubscribeOptions

PORT, PORT_SHORT, PROTOCOL = (int(argument) for argument in sys.argv[1:4])
SECRET = "000102030405060708090a0b0c0d0e0f"
V5 = PROTOCOL == 5
PATIENCE = 20


def properties(kind, **values):
    made = Properties(kind)
    for name, value in values.items():
        setattr(made, name, value)
    return made


class Client:
    """One client; what comes in is in queues."""

    def __init__(self, device, client_id, clean=True, port=PORT, keep_alive=30, connect=None, will=None, expiry=None, inflight=20):
        more = {} if V5 else {"clean_session": clean}
        self.client = mqtt.Client(
            mqtt.CallbackAPIVersion.VERSION2, client_id=client_id, protocol=PROTOCOL, reconnect_on_failure=False, **more
        )
        self.client.username_pw_set(f"user-{device}", SECRET)
        self.client.max_inflight_messages_set(inflight)
        self.messages, self.connected, self.acks, self.ended = (queue.Queue() for _ in range(4))
        self.client.on_connect = lambda c, u, flags, reason, props: self.connected.put((flags, reason, props))
        self.client.on_message = lambda c, u, message: self.messages.put(message)
        self.client.on_publish = lambda c, u, mid, reason, props: self.acks.put((mid, reason))
        self.client.on_disconnect = lambda c, u, flags, reason, props: self.ended.put(reason)
        self.subacks = queue.Queue()
        self.client.on_subscribe = lambda c, u, mid, reasons, props: self.subacks.put(reasons)
        self.client.on_unsubscribe = lambda c, u, mid, reasons, props: self.subacks.put(reasons)
        if will:
            topic, payload, delay = will
            delay = properties(PacketTypes.WILLMESSAGE, WillDelayInterval=delay) if V5 and delay else None
            self.client.will_set(topic, payload, qos=1, properties=delay)
        extra = {}
        if V5:
            asked = dict(connect or {})
            if expiry is None and not clean:
                expiry = 300
            if expiry:
                asked["SessionExpiryInterval"] = expiry
            extra = {"clean_start": clean, "properties": properties(PacketTypes.CONNECT, **asked)}
        self.client.connect("127.0.0.1", port, keepalive=keep_alive, **extra)
        self.client.loop_start()
        self.flags, self.reason, self.granted = self.connected.get(timeout=PATIENCE)
        assert not self.reason.is_failure, self.reason

    def publish(self, topic, payload, qos=1, retain=False, **props):
        more = {"properties": properties(PacketTypes.PUBLISH, **props)} if props else {}
        info = self.client.publish(topic, payload, qos, retain, **more)
        mid, reason = self.acks.get(timeout=PATIENCE)
        assert mid == info.mid
        return reason

    def subscribe(self, *filters, **props):
        more = {"properties": properties(PacketTypes.SUBSCRIBE, **props)} if props else {}
        if V5:
            filters = [(path, qos if isinstance(qos, SubscribeOptions) else SubscribeOptions(qos=qos)) for path, qos in filters]
        self.client.subscribe(list(filters), **more)
        return self.subacks.get(timeout=PATIENCE)

    def next(self):
        return self.messages.get(timeout=PATIENCE)

    def payload(self):
        return self.next().payload.decode()

    def silent(self, marker):
        """Nothing came before what comes next, which is this marker of its own."""
        self.subscribe((marker, 0))
        self.publish(marker, "marker", 0)
        got = self.next()
        assert got.topic == marker, (got.topic, got.payload)

    def leave(self):
        self.client.disconnect()
        self.ended.get(timeout=PATIENCE)
        self.client.loop_stop()

    def drop(self):
        """The socket closes without DISCONNECT."""
        self.client._sock_close()
        self.client.loop_stop()


def qos():
    sensor, display = Client("a", "sensor"), Client("display", "d")
    display.subscribe(("vitals/v1/a/#", 2))
    for level in (0, 1, 2):
        sensor.publish("vitals/v1/a/num/heart-rate", f"q{level}", level)
        got = display.next()
        assert (got.payload.decode(), got.qos) == (f"q{level}", level)
    for number in range(200):
        sensor.client.publish("vitals/v1/a/num/heart-rate", str(number), 2)
    assert [display.payload() for _ in range(200)] == [str(number) for number in range(200)]
    sensor.leave()
    display.leave()


def sessions():
    display = Client("display", "kept", clean=False)
    assert not display.flags.session_present
    display.subscribe(("vitals/v1/a/#", 2))
    display.leave()
    sensor = Client("a", "sensor")
    for level in (0, 1, 2):
        sensor.publish("vitals/v1/a/num/spo2", f"q{level}", level)
    display = Client("display", "kept", clean=False)
    assert display.flags.session_present
    assert [display.payload() for _ in range(2)] == ["q1", "q2"]
    display.leave()
    display = Client("display", "kept", clean=True)
    assert not display.flags.session_present
    display.silent("local/v1/display/marker")
    display.leave()
    if V5:
        short = Client("display", "short", clean=False, expiry=1)
        short.leave()
        time.sleep(1.5)
        short = Client("display", "short", clean=False, expiry=1)
        assert not short.flags.session_present, "expired"
        short.leave()
        assigned = Client("display", "")
        assert assigned.granted.AssignedClientIdentifier
        assigned.leave()
    taken, newer = Client("a", "same"), Client("a", "same")
    # The code of a DISCONNECT without properties paho does not read; MQTT.js does.
    taken.ended.get(timeout=PATIENCE)
    newer.leave()
    sensor.leave()


def retained():
    sensor = Client("a", "sensor")
    sensor.publish("vitals/v1/a/status", "online", 1, True)
    display = Client("display", "d")
    display.subscribe(("vitals/v1/a/status", 1))
    got = display.next()
    assert got.retain and got.payload == b"online"
    sensor.publish("vitals/v1/a/status", "still", 1, True)
    assert not display.next().retain, "live"
    if V5:
        as_published = SubscribeOptions(qos=1, retainAsPublished=True, retainHandling=SubscribeOptions.RETAIN_DO_NOT_SEND)
        display.subscribe(("vitals/v1/a/status", as_published))
        sensor.publish("vitals/v1/a/status", "again", 1, True)
        got = display.next()
        assert got.retain and got.payload == b"again"
    sensor.publish("vitals/v1/a/status", "", 1, True)
    display.next()
    display.leave()
    late = Client("display", "late")
    late.subscribe(("vitals/v1/a/status", 1))
    late.silent("local/v1/display/marker")
    late.leave()
    sensor.leave()


def wills():
    display = Client("display", "d")
    display.subscribe(("vitals/v1/a/status", 1))
    Client("a", "lost", will=("vitals/v1/a/status", "lost", 0)).drop()
    assert display.payload() == "lost"
    Client("a", "polite", will=("vitals/v1/a/status", "polite", 0)).leave()
    display.silent("local/v1/display/marker")
    if V5:
        # Of the one who is back it would have been due before the other's.
        Client("a", "back", clean=False, will=("vitals/v1/a/status", "never", 2)).drop()
        back = Client("a", "back", clean=False)
        late = Client("a", "late", clean=False, will=("vitals/v1/a/status", "late", 3))
        began = time.monotonic()
        late.drop()
        assert display.payload() == "late"
        assert time.monotonic() - began >= 3
        display.silent("local/v1/display/marker-2")
        back.leave()
    display.leave()


def subscriptions():
    sensor, display = Client("a", "sensor"), Client("display", "d")
    if V5:
        display.subscribe(("vitals/v1/a/#", 0), SubscriptionIdentifier=7)
        display.subscribe(("vitals/v1/+/num/x", 1), SubscriptionIdentifier=8)
    else:
        display.subscribe(("vitals/v1/a/#", 0), ("vitals/v1/+/num/x", 1))
    sensor.publish("vitals/v1/a/num/x", "once", 2)
    got = display.next()
    assert got.qos == 1
    assert not V5 or sorted(got.properties.SubscriptionIdentifier) == [7, 8]
    display.silent("local/v1/display/marker")
    display.client.unsubscribe(["vitals/v1/a/#", "vitals/v1/+/num/x"])
    display.subacks.get(timeout=PATIENCE)
    sensor.publish("vitals/v1/a/num/x", "unseen")
    display.silent("local/v1/display/marker-2")
    denied = display.subscribe(("vitals/v1/+/#", 1), ("local/v1/b/#", 1), ("#", 1))
    assert [reason.value for reason in denied] == [1] + [0x87 if V5 else 0x80] * 2, denied
    if V5:
        own = SubscribeOptions(qos=1, noLocal=True)
        display.subscribe(("local/v1/display/own", own))
        display.publish("local/v1/display/own", "mine")
        display.silent("local/v1/display/marker-3")
    display.leave()

    one, two = Client("display", "one"), Client("display-2", "two")
    for member in (one, two):
        member.subscribe(("$share/ward/vitals/v1/a/#", 1))
    for number in range(20):
        sensor.publish("vitals/v1/a/num/x", str(number))
    got = [[member.payload() for _ in range(10)] for member in (one, two)]
    assert sorted(got[0] + got[1], key=int) == [str(number) for number in range(20)]
    for member in (one, two, sensor):
        member.leave()


def flow_control():
    """The server takes two at a time here; and gives one at a time to a client that says so."""
    # Receive Maximum paho leaves to its user; one who sends more is told 0x93 and closed.
    sensor = Client("a", "sensor", port=PORT_SHORT, inflight=2)
    done = threading.Event()
    left = [50]

    def acknowledged(*_):
        left[0] -= 1
        if left[0] == 0:
            done.set()

    sensor.client.on_publish = acknowledged
    assert not V5 or sensor.granted.ReceiveMaximum == 2
    for number in range(50):
        sensor.client.publish("vitals/v1/a/num/x", str(number), 1 + number % 2)
    assert done.wait(PATIENCE), left
    sensor.leave()
    display = Client("display", "d", connect={"ReceiveMaximum": 1})
    display.subscribe(("vitals/v1/a/#", 2))
    sensor = Client("a", "sensor")
    for number in range(30):
        sensor.client.publish("vitals/v1/a/num/x", str(number), 1 + number % 2)
    # In another order: what is of QoS 2 paho hands out when it is released.
    assert sorted(int(display.payload()) for _ in range(30)) == list(range(30))
    display.leave()
    sensor.leave()


def keep_alive():
    never = Client("a", "never", keep_alive=0)
    brief = Client("a", "brief", port=PORT_SHORT, keep_alive=1 if V5 else 0)
    if V5:
        assert never.granted.ServerKeepAlive == 600
        assert not hasattr(brief.granted, "ServerKeepAlive")
        # Server Keep Alive paho does not take over: it is lost after one and a half of it.
        lost = Client("a", "lost", port=PORT_SHORT, keep_alive=60)
        assert lost.granted.ServerKeepAlive == 2
        began = time.monotonic()
        lost.ended.get(timeout=PATIENCE)
        assert 2.5 < time.monotonic() - began < 10
    time.sleep(4)
    for client in (never, brief):
        assert client.ended.empty(), "still there"
        client.publish("vitals/v1/a/num/x", "alive")
        client.leave()


def reason_codes():
    sensor = Client("a", "sensor")
    if V5:
        # At QoS 2 paho takes any PUBREC for a success and releases; what it then hears is that there is nothing to release.
        for level, expected in ((1, (0x97, 0x87)), (2, (0x92, 0x92))):
            refused = sensor.publish("vitals/v1/a/num/x", "refuse", level), sensor.publish("vitals/v1/b/num/x", "72", level)
            assert tuple(reason.value for reason in refused) == expected, refused
            quarantined = [sensor.publish("vitals/v1/a/num/x", said, level).value for said in ("garbage", "unbound")]
            assert quarantined == ([0x99, 0x87] if level == 1 else [0x92, 0x92]), quarantined
            assert sensor.publish("vitals/v1/a/num/x", "72", level).value == 0
        sensor.leave()
    else:
        for level in (1, 2):
            sensor.publish("vitals/v1/a/num/x", "garbage", level)
        sensor.client.publish("vitals/v1/a/num/x", "refuse", 1)
        sensor.ended.get(timeout=PATIENCE)
        assert sensor.acks.empty(), "withheld"
        sensor.client.loop_stop()
    wrong = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, protocol=PROTOCOL, reconnect_on_failure=False)
    wrong.username_pw_set("user-a", "wrong")
    refused = queue.Queue()
    wrong.on_connect = lambda c, u, flags, reason, props: refused.put(reason)
    wrong.connect("127.0.0.1", PORT)
    wrong.loop_start()
    reason = refused.get(timeout=PATIENCE)
    assert reason.value == 0x86, reason
    wrong.loop_stop()


def requests():
    """Request and response (5.0): the requester names a topic of the responder's own."""
    if not V5:
        return
    sensor, display = Client("a", "sensor"), Client("display", "d")
    sensor.subscribe(("local/v1/display/request/a", 1))
    display.subscribe(("local/v1/a/answer/display", 1))
    display.publish(
        "local/v1/display/request/a", "battery?", 1,
        ResponseTopic="local/v1/a/answer/display", CorrelationData=b"\x00\x01", UserProperty=[("unit", "%"), ("unit", "V")],
        ContentType="text/plain", PayloadFormatIndicator=1, MessageExpiryInterval=60,
    )
    request = sensor.next()
    assert request.properties.UserProperty == [("unit", "%"), ("unit", "V")]
    assert request.properties.ContentType == "text/plain" and 0 < request.properties.MessageExpiryInterval <= 60
    sensor.publish(request.properties.ResponseTopic, "87", 1, CorrelationData=request.properties.CorrelationData)
    answer = display.next()
    assert (answer.payload, answer.properties.CorrelationData) == (b"87", b"\x00\x01")
    sensor.leave()
    display.leave()


def topic_aliases():
    if not V5:
        return
    sensor, display = Client("a", "sensor"), Client("display", "d")
    display.subscribe(("vitals/v1/a/#", 1))
    sensor.publish("vitals/v1/a/num/x", "named", 1, TopicAlias=3)
    # paho refuses to publish without a topic; below its API it writes what it is told.
    alias = properties(PacketTypes.PUBLISH, TopicAlias=3)
    mid = sensor.client._mid_generate()
    info = mqtt.MQTTMessageInfo(mid)
    sensor.client._send_publish(mid, b"", b"by its alias", 0, False, False, info, alias)
    assert [display.payload(), display.payload()] == ["named", "by its alias"]
    sensor.leave()
    display.leave()


for case in (
    qos, sessions, retained, wills, subscriptions, flow_control, keep_alive, reason_codes, requests, topic_aliases
):
    print(f"paho {PROTOCOL}: {case.__name__}", flush=True)
    case()
