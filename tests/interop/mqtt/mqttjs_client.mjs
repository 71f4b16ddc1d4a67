// MQTT.js against the gateway's MQTT server: URL, URL_SHORT (Server Keep Alive 2 s, Receive Maximum 2), PROTOCOL (4 or 5).
//
// What is published with payload `refuse` the pipeline behind the server refuses, to `hold` it gives no answer; all else it stores.

import assert from "node:assert/strict";
import { setTimeout as pause } from "node:timers/promises";
import mqtt from "mqtt";

const [URL, URL_SHORT, PROTOCOL] = process.argv.slice(2);
const protocolVersion = Number(PROTOCOL);
const V5 = protocolVersion === 5;
const password = "000102030405060708090a0b0c0d0e0f";
const PATIENCE_MS = 20_000;

class Queue {
  #items = [];
  #waiting = [];
  push(item) {
    const waiter = this.#waiting.shift();
    if (waiter) waiter(item);
    else this.#items.push(item);
  }
  get length() {
    return this.#items.length;
  }
  next(what) {
    if (this.#items.length) return Promise.resolve(this.#items.shift());
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`${what}: did not come`)), PATIENCE_MS);
      this.#waiting.push((item) => {
        clearTimeout(timer);
        resolve(item);
      });
    });
  }
}

class Client {
  messages = new Queue();
  closed = new Queue();
  told = new Queue();

  static async up(device, clientId, options = {}, url = URL) {
    const self = new Client();
    const settings = {
      clientId, username: `user-${device}`, password, protocolVersion, reconnectPeriod: 0, clean: true, keepalive: 30, ...options,
    };
    if (V5 && !settings.clean) settings.properties = { sessionExpiryInterval: 300, ...settings.properties };
    self.mqtt = mqtt.connect(url, settings);
    self.mqtt.on("message", (topic, payload, packet) => self.messages.push({ topic, payload: payload.toString(), packet }));
    self.mqtt.on("close", () => self.closed.push(true));
    self.mqtt.on("disconnect", (packet) => self.told.push(packet.reasonCode));
    self.mqtt.on("error", () => {});
    self.granted = await new Promise((resolve, reject) => {
      self.mqtt.once("connect", resolve);
      self.mqtt.once("error", reject);
    });
    return self;
  }
  publish(topic, payload, qos = 1, options = {}) {
    return this.mqtt.publishAsync(topic, payload, { qos, ...options });
  }
  subscribe(topic, qos = 1, options = {}) {
    return this.mqtt.subscribeAsync(topic, { qos, ...options });
  }
  next() {
    return this.messages.next("a message");
  }
  async payload() {
    return (await this.next()).payload;
  }
  /** Nothing came before what comes next, which is this marker of its own. */
  async silent(marker) {
    await this.subscribe(marker, 0);
    await this.publish(marker, "marker", 0);
    assert.equal((await this.next()).topic, marker);
  }
  async leave() {
    await this.mqtt.endAsync();
  }
  /** The socket closes without DISCONNECT. */
  async drop() {
    this.mqtt.stream.destroy();
    await this.closed.next("the end");
  }
}

/** What is on its way to a client: sent to it, as its socket has it, and not acknowledged by it. The client itself looks at one at a time. */
class OnTheirWay {
  now = 0;
  most = 0;
  #rest = Buffer.alloc(0);
  #came = new Queue();
  #pongs = new Queue();
  constructor(client) {
    this.client = client.mqtt;
    this.client.stream.on("data", (bytes) => this.#read(bytes));
    this.client.on("packetsend", ({ cmd }) => {
      if (cmd === "puback" || cmd === "pubcomp") this.now -= 1;
    });
  }
  #read(bytes) {
    this.#rest = Buffer.concat([this.#rest, bytes]);
    while (this.#rest.length >= 2) {
      const [first, length] = this.#rest;
      assert.ok(length < 128, "packets here have their length in one byte");
      if (this.#rest.length < 2 + length) return;
      this.#rest = this.#rest.subarray(2 + length);
      if (first >> 4 === 13) this.#pongs.push(true);
      if (first >> 4 === 3 && first & 0x06) {
        this.now += 1;
        this.most = Math.max(this.most, this.now);
        this.#came.push(true);
      }
    }
  }
  /** There are as many as this, and no more after whatever the server sends before it answers a ping. */
  async are(count) {
    while (this.now < count) await this.#came.next(`message ${this.now + 1} of ${count}`);
    this.client.sendPing();
    await this.#pongs.next("the answer to a ping");
    assert.equal(this.now, count);
  }
}

/** Publishes pairs of payload and QoS, this many at a time. */
async function burst(client, messages, width) {
  const rest = messages.values();
  const lane = async () => {
    for (const [payload, qos] of rest) await client.publish("vitals/v1/a/num/x", payload, qos);
  };
  await Promise.all(Array.from({ length: width }, lane));
}

const range = (count) => Array.from({ length: count }, (_, number) => String(number));

async function gather(client, count) {
  const got = [];
  while (got.length < count) got.push(await client.payload());
  return got;
}

const cases = {
  async qos() {
    const [sensor, display] = [await Client.up("a", "sensor"), await Client.up("display", "d")];
    await display.subscribe("vitals/v1/a/#", 2);
    for (const qos of [0, 1, 2]) {
      await sensor.publish("vitals/v1/a/num/x", `q${qos}`, qos);
      const got = await display.next();
      assert.deepEqual([got.payload, got.packet.qos], [`q${qos}`, qos]);
    }
    await Promise.all(range(200).map((number) => sensor.publish("vitals/v1/a/num/x", number, 2)));
    assert.deepEqual(await gather(display, 200), range(200));
    const large = "x".repeat(100_000);
    await sensor.publish("vitals/v1/a/num/x", large, 1);
    assert.equal(await display.payload(), large);
    await sensor.leave();
    await display.leave();
  },
  async sessions() {
    let display = await Client.up("display", "kept", { clean: false });
    assert.equal(display.granted.sessionPresent, false);
    await display.subscribe("vitals/v1/a/#", 2);
    await display.leave();
    const sensor = await Client.up("a", "sensor");
    for (const qos of [0, 1, 2]) await sensor.publish("vitals/v1/a/num/x", `q${qos}`, qos);
    display = await Client.up("display", "kept", { clean: false });
    assert.equal(display.granted.sessionPresent, true);
    assert.deepEqual(await gather(display, 2), ["q1", "q2"]);
    await display.leave();
    display = await Client.up("display", "kept");
    assert.equal(display.granted.sessionPresent, false);
    await display.leave();
    const taken = await Client.up("a", "same");
    const newer = await Client.up("a", "same");
    if (V5) assert.equal(await taken.told.next("DISCONNECT"), 0x8e);
    await taken.closed.next("the end");
    await newer.leave();
    await sensor.leave();
  },
  async retained() {
    const sensor = await Client.up("a", "sensor");
    await sensor.publish("vitals/v1/a/status", "online", 1, { retain: true });
    const display = await Client.up("display", "d");
    await display.subscribe("vitals/v1/a/status");
    const got = await display.next();
    assert.ok(got.packet.retain && got.payload === "online");
    if (V5) {
      await display.subscribe("vitals/v1/a/status", 1, { rh: 1 });
      await display.silent("local/v1/display/marker");
      await display.subscribe("vitals/v1/a/status", 1, { rh: 2, rap: true });
      await sensor.publish("vitals/v1/a/status", "still", 1, { retain: true });
      assert.ok((await display.next()).packet.retain);
    }
    await sensor.publish("vitals/v1/a/status", "", 1, { retain: true });
    await display.leave();
    const late = await Client.up("display", "late");
    await late.subscribe("vitals/v1/a/status");
    await late.silent("local/v1/display/marker");
    await late.leave();
    await sensor.leave();
  },
  async wills() {
    const display = await Client.up("display", "d");
    await display.subscribe("vitals/v1/a/status");
    const will = (payload, willDelayInterval) => ({
      topic: "vitals/v1/a/status", payload: Buffer.from(payload), qos: 1,
      ...(V5 && willDelayInterval ? { properties: { willDelayInterval } } : {}),
    });
    await (await Client.up("a", "lost", { will: will("lost") })).drop();
    assert.equal(await display.payload(), "lost");
    await (await Client.up("a", "polite", { will: will("polite") })).leave();
    if (V5) {
      // Of the one who is back it would have been due before the other's.
      await (await Client.up("a", "back", { clean: false, will: will("never", 2) })).drop();
      const back = await Client.up("a", "back", { clean: false });
      const late = await Client.up("a", "late", { clean: false, will: will("late", 3) });
      const began = performance.now();
      await late.drop();
      assert.equal(await display.payload(), "late");
      assert.ok(performance.now() - began >= 3_000);
      await back.leave();
    }
    await display.silent("local/v1/display/marker");
    await display.leave();
  },
  async subscriptions() {
    const [sensor, display] = [await Client.up("a", "sensor"), await Client.up("display", "d")];
    const id = (subscriptionIdentifier) => (V5 ? { properties: { subscriptionIdentifier } } : {});
    await display.subscribe("vitals/v1/a/#", 0, id(7));
    await display.subscribe("vitals/v1/+/num/x", 1, id(8));
    await sensor.publish("vitals/v1/a/num/x", "once", 2);
    const got = await display.next();
    assert.equal(got.packet.qos, 1);
    if (V5) assert.deepEqual(got.packet.properties.subscriptionIdentifier, [7, 8]);
    await display.silent("local/v1/display/marker");
    await display.mqtt.unsubscribeAsync(["vitals/v1/a/#", "vitals/v1/+/num/x"]);
    await sensor.publish("vitals/v1/a/num/x", "unseen");
    await display.silent("local/v1/display/marker-2");
    const denied = await new Promise((resolve) => {
      sensor.mqtt.subscribe("vitals/v1/b/#", { qos: 1 }, (error, granted, packet) => resolve(packet ?? error.packet));
    });
    assert.deepEqual([...denied.granted], [V5 ? 0x87 : 0x80]);
    if (V5) {
      await display.subscribe("local/v1/display/own", 1, { nl: true });
      await display.publish("local/v1/display/own", "mine");
      await display.silent("local/v1/display/marker-3");
    }
    await display.leave();
    const members = [await Client.up("display", "one"), await Client.up("display-2", "two")];
    for (const member of members) await member.subscribe("$share/ward/vitals/v1/a/#");
    await Promise.all(range(20).map((number) => sensor.publish("vitals/v1/a/num/x", number)));
    const shares = [await gather(members[0], 10), await gather(members[1], 10)];
    assert.deepEqual(shares.flat().sort((a, b) => a - b), range(20));
    for (const client of [...members, sensor]) await client.leave();
  },
  async flow_control() {
    const [sensor, seen] = [await Client.up("a", "sensor", {}, URL_SHORT), await Client.up("display", "s", {}, URL_SHORT)];
    await seen.subscribe("vitals/v1/a/#", 2);
    // 50 at QoS 1 and 20 at QoS 2. Receive Maximum MQTT.js leaves to its user; 3.1.1 has none, and there the server reads no further.
    const messages = range(70).map((number) => [number, number % 7 < 5 ? 1 : 2]);
    if (V5) assert.equal(sensor.granted.properties.receiveMaximum, 2);
    await burst(sensor, messages, V5 ? 2 : messages.length);
    assert.deepEqual((await gather(seen, 70)).sort((a, b) => a - b), range(70));
    await sensor.leave();
    await seen.leave();
    if (V5) {
      const greedy = await Client.up("a", "greedy", {}, URL_SHORT);
      for (const qos of [1, 2, 1]) greedy.publish("vitals/v1/a/num/x", "hold", qos).catch(() => {});
      assert.equal(await greedy.told.next("DISCONNECT"), 0x93);
      await greedy.closed.next("the end");
    }
    const display = await Client.up("display", "d", V5 ? { properties: { receiveMaximum: 1 } } : {});
    await display.subscribe("vitals/v1/a/#", 2);
    const fast = await Client.up("a", "sensor");
    await Promise.all(range(30).map((number) => fast.publish("vitals/v1/a/num/x", number, 1 + (number % 2))));
    // In another order: what is of QoS 2 the client hands out when it is released.
    assert.deepEqual((await gather(display, 30)).sort((a, b) => a - b), range(30));
    await display.leave();
    await fast.leave();
  },
  async slow_subscriber() {
    if (!V5) return;
    const sensor = await Client.up("a", "sensor");
    const display = await Client.up("display", "slow", { properties: { receiveMaximum: 2 } });
    const [onTheirWay, acknowledgements] = [new OnTheirWay(display), new Queue()];
    display.mqtt.handleMessage = (packet, acknowledge) => acknowledgements.push(acknowledge);
    await display.subscribe("vitals/v1/a/#", 2);
    await burst(sensor, range(20).map((number) => [number, 1 + (number % 2)]), 20);
    for (let left = 20; left > 0; left -= 1) {
      const acknowledge = await acknowledgements.next("a message");
      await onTheirWay.are(Math.min(2, left));
      acknowledge();
    }
    assert.equal(onTheirWay.most, 2);
    assert.deepEqual((await gather(display, 20)).sort((a, b) => a - b), range(20));
    await display.leave();
    await sensor.leave();
  },
  async keep_alive() {
    const never = await Client.up("a", "never", { keepalive: 0 });
    const short = await Client.up("a", "short", { keepalive: V5 ? 60 : 0 }, URL_SHORT);
    if (V5) assert.equal(short.granted.properties.serverKeepAlive, 2);
    await pause(4_000);
    for (const client of [never, short]) {
      await client.publish("vitals/v1/a/num/x", "alive");
      await client.leave();
    }
  },
  async reason_codes() {
    const sensor = await Client.up("a", "sensor");
    if (V5) {
      for (const qos of [1, 2]) {
        await assert.rejects(sensor.publish("vitals/v1/a/num/x", "refuse", qos), (error) => error.code === 0x97);
        await assert.rejects(sensor.publish("vitals/v1/b/num/x", "72", qos), (error) => error.code === 0x87);
        await assert.rejects(sensor.publish("vitals/v1/a/num/x", "garbage", qos), (error) => error.code === 0x99);
        await assert.rejects(sensor.publish("vitals/v1/a/num/x", "unbound", qos), (error) => error.code === 0x87);
        await sensor.publish("vitals/v1/a/num/x", "72", qos);
      }
      await sensor.leave();
    } else {
      for (const qos of [1, 2]) await sensor.publish("vitals/v1/a/num/x", "garbage", qos);
      sensor.mqtt.publish("vitals/v1/a/num/x", "refuse", { qos: 1 }, () => {});
      await sensor.closed.next("the end");
    }
    await assert.rejects(Client.up("a", "wrong", { password: "wrong" }), (error) => error.code === (V5 ? 0x86 : 4));
  },
  async topic_aliases() {
    if (!V5) return;
    const sensor = await Client.up("a", "sensor", { autoAssignTopicAlias: true });
    const display = await Client.up("display", "d", { properties: { topicAliasMaximum: 4 } });
    await display.subscribe("vitals/v1/a/#");
    for (const metric of [...range(10), ...range(10)]) {
      await sensor.publish(`vitals/v1/a/num/${metric}`, metric);
      const got = await display.next();
      assert.deepEqual([got.topic, got.payload], [`vitals/v1/a/num/${metric}`, metric]);
    }
    await sensor.leave();
    await display.leave();
  },
  async properties() {
    if (!V5) return;
    const [sensor, display] = [await Client.up("a", "sensor"), await Client.up("display", "d")];
    await sensor.subscribe("local/v1/display/request/a");
    await display.subscribe("local/v1/a/answer/display");
    const properties = {
      responseTopic: "local/v1/a/answer/display", correlationData: Buffer.from([0, 1]), contentType: "text/plain",
      userProperties: { unit: ["%", "V"] }, messageExpiryInterval: 60, payloadFormatIndicator: true,
    };
    await display.publish("local/v1/display/request/a", "battery?", 1, { properties });
    const request = (await sensor.next()).packet.properties;
    assert.deepEqual({ ...request.userProperties }, { unit: ["%", "V"] });
    const { responseTopic, correlationData } = request;
    await sensor.publish(responseTopic, "87", 1, { properties: { correlationData } });
    const answer = await display.next();
    assert.deepEqual([answer.payload, answer.packet.properties.correlationData], ["87", Buffer.from([0, 1])]);
    await sensor.leave();
    await display.leave();
  },
};

for (const [name, run] of Object.entries(cases)) {
  console.log(`MQTT.js ${PROTOCOL} ${URL.split(":")[0]}: ${name}`);
  await run();
}
process.exit(0);
