"""Azure IoT Hub, as its documentation describes it: one device's twin behind a door that checks shared access signatures.

Written from the Microsoft documentation: "Communicate with an IoT hub using the MQTT protocol" (client id, user name, topics of
twin, methods and messages, QoS 2 ends the connection), "Understand and use device twins in IoT Hub" (sections, `$version`, null,
sizes, keys, the reconnection flow: notifications are not kept for a device that is away), "Understand and invoke direct methods",
"Control access to IoT Hub by using shared access signatures" (structure of a token; a connection ends with its token).
"""

import base64
import hashlib
import hmac
import json
import re
import threading
import time
from urllib.parse import quote, unquote

from door import Broken, Rules

HUB, DEVICE = "plant.azure-devices.net", "plant-7"
KEY = base64.b64encode(b"a key of the device, in 32 bytes").decode()
SECTION_BYTES = 32 * 1024
TOKEN = re.compile(r"^SharedAccessSignature sr=(?P<sr>[^&]+)&sig=(?P<sig>[^&]+)&se=(?P<se>[0-9]+)$")


class Door(Rules):
    def __init__(self):
        self.tokens, self.sessions, self.ended = [], 0, 0

    def hello(self, hello):
        if hello.level != 4:
            return 1
        expected = f"{HUB}/{DEVICE}/?api-version=2021-04-12"
        if hello.client != DEVICE or hello.user != expected:
            return 4
        if hello.will and (not hello.will.startswith(f"devices/{DEVICE}/messages/events/") or hello.will_qos > 1):
            raise Broken(f"a will on {hello.will}")
        return None if self.is_signed(hello.password or "") else 5

    def is_signed(self, password):
        token = TOKEN.match(password)
        if not token or unquote(token["sr"]).lower() != f"{HUB}/devices/{DEVICE}".lower():
            return False
        said = f"{token['sr']}\n{token['se']}".encode()
        signature = base64.b64encode(hmac.new(base64.b64decode(KEY), said, hashlib.sha256).digest())
        if not hmac.compare_digest(quote(signature, safe="").lower(), token["sig"].lower()):
            return False
        self.tokens.append(int(token["se"]))
        return int(token["se"]) > time.time()

    def lasts(self, hello):
        return int(TOKEN.match(hello.password)["se"]) - time.time()

    def opened(self, hello):
        self.sessions += 1

    def closed(self):
        self.ended += 1

    def subscribe(self, filters):
        for name, qos in filters:
            if qos > 1 or not name.startswith(("$iothub/", f"devices/{DEVICE}/messages/devicebound/")):
                raise Broken(f"a subscription to {name} with QoS {qos}")
        if len(filters) > 5:
            raise Broken(f"{len(filters)} subscriptions")

    def publish(self, topic, qos, retain, payload):
        if qos > 1:
            raise Broken(f"QoS {qos} on {topic}")
        if not topic.startswith(("$iothub/twin/", "$iothub/methods/res/", f"devices/{DEVICE}/messages/events/")):
            raise Broken(f"a message on {topic}")


def merge(section, patch):
    for key, value in patch.items():
        if value is None:
            section.pop(key, None)
        elif isinstance(value, dict):
            if not isinstance(section.get(key), dict):
                section[key] = {}
            merge(section[key], value)
        else:
            section[key] = value


def weight(value):
    """Keys and texts by their bytes, numbers 8, booleans 4."""
    if isinstance(value, dict):
        return sum(len(key.encode()) + weight(inner) for key, inner in value.items())
    if isinstance(value, list):
        return sum(map(weight, value))
    if isinstance(value, str):
        return len(value.encode())
    return 4 if isinstance(value, bool) else 8


def wrong(value, level=1):
    """Why the hub does not take a value."""
    if isinstance(value, dict):
        if level > 10:
            return "more than 10 levels"
        for key, inner in value.items():
            if not key or len(key.encode()) > 1024 or any(letter in ". $" or ord(letter) < 32 for letter in key):
                return f"the key {key!r}"
            why = wrong(inner, level + 1)
            if why:
                return why
    if isinstance(value, list):
        return "null in an array" if None in value else next(filter(None, (wrong(item, level + 1) for item in value)), None)
    if isinstance(value, str) and len(value.encode()) > 4096:
        return "a text over 4 KB"
    if isinstance(value, int) and not isinstance(value, bool) and not -4503599627370496 <= value <= 4503599627370495:
        return f"the integer {value}"
    return None


class Service:
    """The twin of the device, its methods, and what it sent as messages."""

    rules = Door()

    def __init__(self, say):
        self.say = say
        self.lock = threading.RLock()
        self.twin = {"desired": {}, "reported": {}}
        self.versions = {"desired": 1, "reported": 1}
        self.messages, self.patches, self.gets = [], 0, 0
        self.answers = {}
        self.throttle = 0

    def hear(self, topic, payload):
        with self.lock:
            if topic.startswith(f"devices/{DEVICE}/messages/events/"):
                self.messages.append([topic.rsplit("/", 1)[1], json.loads(payload)])
                return
            path, _, query = topic.partition("/?")
            rid = dict(part.split("=", 1) for part in query.split("&")).get("$rid", "")
            if self.throttle and path.startswith("$iothub/twin/"):
                self.throttle -= 1
                self.say(f"$iothub/twin/res/429/?$rid={rid}", {"errorCode": 429001, "message": "throttled"})
            elif path == "$iothub/twin/GET":
                self.gets += 1
                self.say(f"$iothub/twin/res/200/?$rid={rid}", self.document())
            elif path == "$iothub/twin/PATCH/properties/reported":
                self.report(rid, payload)
            elif path.startswith("$iothub/methods/res/"):
                self.answers[rid] = {"status": int(path.rsplit("/", 1)[1]), "payload": json.loads(payload)}

    def document(self):
        return {section: {**values, "$version": self.versions[section]} for section, values in self.twin.items()}

    def report(self, rid, payload):
        patch = json.loads(payload)
        trial = json.loads(json.dumps(self.twin["reported"]))
        why = wrong(patch)
        merge(trial, patch)
        if not why and weight(trial) > SECTION_BYTES:
            why = f"the section would have {weight(trial)} bytes"
        if why:
            return self.say(f"$iothub/twin/res/400/?$rid={rid}", {"errorCode": 400000, "message": why})
        self.patches += 1
        self.twin["reported"] = trial
        self.versions["reported"] += 1
        return self.say(f"$iothub/twin/res/204/?$rid={rid}&$version={self.versions['reported']}", None)

    def order(self, order):
        with self.lock:
            if "desired" in order:
                merge(self.twin["desired"], order["desired"])
                self.versions["desired"] += 1
                version = self.versions["desired"]
                # only who is connected hears of it: the broker keeps nothing for a clean session
                topic = f"$iothub/twin/PATCH/properties/desired/?$version={version}"
                self.say(topic, {**order["desired"], "$version": version})
                return {"version": version}
            if order.get("what") == "twin":
                return self.document()
            if "throttle" in order:
                self.throttle = order["throttle"]
                return {}
            if "method" not in order:
                rules = self.rules
                return {"messages": self.messages, "patches": self.patches, "gets": self.gets, "tokens": rules.tokens,
                        "sessions": rules.sessions, "ended": rules.ended}
            rid = f"m{len(self.answers)}"
            self.say(f"$iothub/methods/POST/{order['method']}/?$rid={rid}", order["payload"])
        until = time.time() + 20
        while rid not in self.answers and time.time() < until:
            time.sleep(0.02)
        return self.answers.get(rid, {"status": 504})
