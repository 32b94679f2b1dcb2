"""AWS IoT Core, as its documentation describes it: device shadows behind a door with certificates and ALPN.

Written from the AWS IoT Core developer guide: "Device Shadow MQTT topics", "Device Shadow service documents" (request and
response documents, the delta, "Deleting shadow data", metadata, versioning), "Device Shadow error messages", "Device
communication protocols" (port 443 with ALPN `x-amzn-mqtt-ca`, client certificates); limits from the AWS general reference,
"AWS IoT Core endpoints and quotas": 8 filters a SUBSCRIBE, 50 subscriptions a connection, 7 slashes a topic, QoS 0 and 1, 8 KB a
shadow, 10 shadow requests in flight on one connection.
"""

import json
import re
import threading
import time

from door import Broken, Rules

ALPN = "x-amzn-mqtt-ca"
SHADOW_BYTES = 8 * 1024
LEVELS = 8
IN_FLIGHT = 10
# A service at some distance; with it requests are in flight together, if somebody sends them so.
ANSWER_AFTER_S = 0.05

TOPIC = re.compile(r"^\$aws/things/(?P<thing>[a-zA-Z0-9:_-]{1,128})/shadow(/name/(?P<name>[a-zA-Z0-9:_-]{1,64}))?/(?P<what>get|update|delete)$")


class Door(Rules):
    alpn = ALPN
    wants_certificate = True

    def __init__(self):
        self.subscriptions = 0

    def opened(self, hello):
        self.subscriptions = 0

    def hello(self, hello):
        names = dict(part[0] for part in hello.certificate["subject"])
        # the policy in the guide: a client may connect as its thing alone
        return None if hello.client == names["commonName"] else 0x87 if hello.level == 5 else 5

    def subscribe(self, filters):
        self.subscriptions += len(filters)
        if len(filters) > 8:
            raise Broken(f"{len(filters)} filters in one SUBSCRIBE")
        if self.subscriptions > 50:
            raise Broken(f"{self.subscriptions} subscriptions")
        for name, qos in filters:
            self.look(name, qos)

    def publish(self, topic, qos, retain, payload):
        self.look(topic, qos)
        if len(payload) > 128 * 1024:
            raise Broken(f"{len(payload)} bytes on {topic}")
        if topic.startswith("$aws/") and not TOPIC.match(topic):
            raise Broken(f"a reserved topic that is none: {topic}")

    @staticmethod
    def look(topic, qos):
        if qos > 1:
            raise Broken(f"QoS {qos} on {topic}")
        # the three levels of $aws/things/… do not count
        if topic.count("/") > (10 if topic.startswith("$aws/") else 7):
            raise Broken(f"too many levels: {topic}")


def same(one, other):
    return type(one) is type(other) and one == other if isinstance(one, bool) or isinstance(other, bool) else one == other


def merge(state, metadata, patch, at):
    for key, value in patch.items():
        if value is None:
            state.pop(key, None)
            metadata.pop(key, None)
        elif isinstance(value, dict):
            if not isinstance(state.get(key), dict):
                state[key], metadata[key] = {}, {}
            merge(state[key], metadata[key], value, at)
        else:
            state[key], metadata[key] = value, {"timestamp": at}


def differs(desired, reported):
    delta = {}
    for key, value in desired.items():
        there = reported.get(key) if isinstance(reported, dict) else None
        if isinstance(value, dict) and isinstance(there, dict):
            inner = differs(value, there)
            if inner:
                delta[key] = inner
        elif there is None or not same(value, there):
            delta[key] = value
    return delta


def stamps(delta, metadata):
    return {key: stamps(value, metadata[key]) if isinstance(value, dict) else metadata[key] for key, value in delta.items()}


def levels(value):
    return 1 + max(map(levels, value.values()), default=0) if isinstance(value, dict) else 0


def null_in_array(value):
    if isinstance(value, dict):
        return any(map(null_in_array, value.values()))
    return isinstance(value, list) and any(item is None or null_in_array(item) for item in value)


class Refusal(Exception):
    def __init__(self, code, message):
        self.body = {"code": code, "message": message}


class Shadow:
    def __init__(self):
        self.state = {"desired": {}, "reported": {}}
        self.metadata = {"desired": {}, "reported": {}}
        self.version = 0

    def get(self):
        state = {section: values for section, values in self.state.items() if values}
        delta = differs(self.state["desired"], self.state["reported"])
        if delta:
            state["delta"] = delta
        return {"state": state, "metadata": {section: self.metadata[section] for section in state if section != "delta"},
                "version": self.version, "timestamp": int(time.time())}

    def update(self, request):
        """Gives the answer and the delta."""
        state = request.get("state")
        if not isinstance(state, dict):
            raise Refusal(400, "Missing required node: state")
        if "version" in request and request["version"] != self.version:
            raise Refusal(409, "Version conflict")
        if len(request.get("clientToken", "")) > 64:
            raise Refusal(400, "Invalid clientToken")
        if levels(state) > LEVELS or null_in_array(state):
            raise Refusal(400, "JSON contains too many levels of nesting" if levels(state) > LEVELS else "null in an array")
        now = int(time.time())
        trial, metadata = json.loads(json.dumps([self.state, self.metadata]))
        for section in ("desired", "reported"):
            if section in state:
                if state[section] is None:
                    trial[section], metadata[section] = {}, {}
                else:
                    merge(trial[section], metadata[section], state[section], now)
        size = sum(len(json.dumps(values, separators=(",", ":"), ensure_ascii=False).encode()) for values in trial.values())
        if size > SHADOW_BYTES:
            raise Refusal(413, f"The payload exceeds the maximum size allowed ({size})")
        self.state, self.metadata = trial, metadata
        self.version += 1
        told = {section: stamps(only(patch), self.metadata[section]) for section, patch in state.items() if patch}
        answer = {"state": state, "metadata": told, "version": self.version, "timestamp": now}
        delta = differs(self.state["desired"], self.state["reported"])
        news = {"state": delta, "metadata": stamps(delta, self.metadata["desired"]), "version": self.version, "timestamp": now}
        return answer, news if delta else None


def only(patch):
    """A patch without what it deletes."""
    kept = {key: only(value) if isinstance(value, dict) else value for key, value in patch.items()}
    return {key: value for key, value in kept.items() if value is not None}


class Service:
    """The shadow service; an application speaks to it by orders."""

    rules = Door()

    def __init__(self, say):
        self.say = say
        self.lock = threading.RLock()
        self.shadows = {}
        self.in_flight, self.peak, self.requests, self.conflicts = 0, 0, 0, 0
        self.messages = []

    def hear(self, topic, payload):
        found = TOPIC.match(topic)
        if not found:
            self.messages.append([topic, json.loads(payload)])
            return
        self.in_flight += 1
        self.requests += 1
        self.peak = max(self.peak, self.in_flight)
        threading.Timer(ANSWER_AFTER_S, self.answer, (topic, found, payload, self.in_flight)).start()

    def answer(self, topic, found, payload, at_once):
        with self.lock:
            self.in_flight -= 1
            request = json.loads(payload) if payload else {}
            key = (found["thing"], found["name"])
            try:
                if at_once > IN_FLIGHT:
                    raise Refusal(429, "The Device Shadow service will generate this error message when there are more than 10 in-flight requests")
                self.act(topic, found["what"], key, request)
            except Refusal as refusal:
                self.conflicts += refusal.body["code"] == 409
                self.say(f"{topic}/rejected", {**refusal.body, **self.token(request), "timestamp": int(time.time())})

    @staticmethod
    def token(request):
        return {"clientToken": request["clientToken"]} if "clientToken" in request else {}

    def act(self, topic, what, key, request):
        if what == "update":
            return self.update(topic, key, request)
        if key not in self.shadows:
            raise Refusal(404, f"No shadow exists with name: '{key[1] or key[0]}'")
        if what == "get":
            return self.say(f"{topic}/accepted", {**self.shadows[key].get(), **self.token(request)})
        version = self.shadows.pop(key).version
        return self.say(f"{topic}/accepted", {"version": version, "timestamp": int(time.time())})

    def update(self, topic, key, request):
        shadow = self.shadows.setdefault(key, Shadow())
        try:
            answer, delta = shadow.update(request)
        except Refusal:
            if shadow.version == 0:
                del self.shadows[key]
            raise
        self.say(f"{topic}/accepted", {**answer, **self.token(request)})
        if delta:
            self.say(f"{topic}/delta", {**delta, **self.token(request)})

    def order(self, order):
        with self.lock:
            key = (order.get("thing", "plant-7"), order.get("shadow"))
            if "update" in order:
                name = f"/name/{key[1]}" if key[1] else ""
                try:
                    self.update(f"$aws/things/{key[0]}/shadow{name}/update", key, order["update"])
                except Refusal as refusal:
                    return {"refused": refusal.body}
                return {"version": self.shadows[key].version}
            if order.get("what") == "shadow":
                return self.shadows[key].get() if key in self.shadows else {}
            if order.get("what") == "delete":
                self.shadows.pop(key, None)
                return {}
            return {"requests": self.requests, "peak": self.peak, "conflicts": self.conflicts, "messages": self.messages}
