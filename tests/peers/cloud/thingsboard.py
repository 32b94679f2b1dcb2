"""ThingsBoard, as its documentation describes the MQTT gateway API.

Written from the ThingsBoard documentation, "MQTT Gateway API reference" (connect, disconnect, attributes, attribute requests,
telemetry, server-side RPC) and "MQTT Device API reference" (the gateway's own attributes and telemetry; access token as user
name). What the documentation leaves open is as the server's own source has it (AbstractGatewaySessionHandler, JsonConverter):
updates and calls of a device go to the session that said `connect` for it, one that was never connected gets the type `default`, an
attribute that is not there is answered without a value, `null` is an error that closes the connection, and a message of
several devices is acknowledged several times.
"""

import json
import threading
import time

from door import Broken, Rules

TOKEN = "an-access-token-of-plant-7"


class Door(Rules):
    acknowledges_twice = True
    session = None

    def hello(self, hello):
        return None if hello.user == TOKEN else 0x87 if hello.level == 5 else 5

    def opened(self, hello):
        self.session.begin()

    def closed(self):
        self.session.connected = set()

    def publish(self, topic, qos, retain, payload):
        if not topic.startswith(("v1/gateway/", "v1/devices/me/")):
            raise Broken(f"a message on {topic}")
        if qos > 1 or retain:
            raise Broken(f"QoS {qos}, retain {retain} on {topic}")
        try:
            said = json.loads(payload)
        except ValueError as error:
            raise Broken(f"{topic}: {error}") from error
        if topic != "v1/gateway/rpc" and holds_null(said):
            raise Broken(f"null on {topic}: {payload.decode()}")

    def subscribe(self, filters):
        for name, qos in filters:
            if qos > 1 or not name.startswith(("v1/gateway/", "v1/devices/me/")):
                raise Broken(f"a subscription to {name} with QoS {qos}")


def holds_null(value):
    if isinstance(value, dict):
        return any(map(holds_null, value.values()))
    return value is None or isinstance(value, list) and any(map(holds_null, value))


class Service:
    """Devices with their attributes and telemetry; dashboards speak to it by orders."""

    rules = Door()

    def __init__(self, say):
        self.say = say
        self.lock = threading.RLock()
        self.types, self.client, self.shared, self.telemetry = {}, {}, {}, {}
        self.own = {"attributes": {}, "telemetry": []}
        self.connected, self.sessions, self.requests = set(), 0, 0
        self.answers, self.calls = {}, 0
        self.rules.session = self

    def begin(self):
        with self.lock:
            self.sessions += 1
            self.connected = set()

    def know(self, device, kind="default"):
        self.types.setdefault(device, kind)
        self.connected.add(device)

    def hear(self, topic, payload):
        said = json.loads(payload)
        with self.lock:
            if topic == "v1/gateway/connect":
                self.know(said["device"], said.get("type", "default"))
            elif topic == "v1/gateway/disconnect":
                self.connected.discard(said["device"])
            elif topic == "v1/gateway/attributes":
                for device, values in said.items():
                    self.know(device)
                    self.client.setdefault(device, {}).update(values)
            elif topic == "v1/gateway/telemetry":
                for device, points in said.items():
                    self.know(device)
                    self.telemetry.setdefault(device, []).extend(points)
            elif topic == "v1/gateway/attributes/request":
                self.ask(said)
            elif topic == "v1/gateway/rpc":
                self.answers[said["id"]] = said
            elif topic == "v1/devices/me/attributes":
                self.own["attributes"].update(said)
            elif topic == "v1/devices/me/telemetry":
                self.own["telemetry"].append(said)

    def ask(self, said):
        self.requests += 1
        device = said["device"]
        self.know(device)
        held = (self.client if said["client"] else self.shared).get(device, {})
        answer = {"id": said["id"], "device": device}
        if said["key"] in held:
            answer["value"] = held[said["key"]]
        self.say("v1/gateway/attributes/response", answer)

    def order(self, order):
        device = order.get("device")
        with self.lock:
            if "shared" in order:
                self.shared.setdefault(device, {}).update(order["shared"])
                return self.tell(device, order["shared"])
            if "delete" in order:
                for key in order["delete"]:
                    self.shared.get(device, {}).pop(key, None)
                return self.tell(device, {"deleted": order["delete"]})
            if "call" not in order:
                return {"types": self.types, "client": self.client, "telemetry": self.telemetry, "own": self.own,
                        "connected": sorted(self.connected), "sessions": self.sessions, "requests": self.requests}
            self.calls += 1
            number = self.calls
            data = {"id": number, "method": order["call"], "params": order["params"]}
            self.say("v1/gateway/rpc", {"device": device, "data": data})
        until = time.time() + 20
        while number not in self.answers and time.time() < until:
            time.sleep(0.02)
        return self.answers.get(number, {})

    def tell(self, device, data):
        if device in self.connected:
            self.say("v1/gateway/attributes", {"device": device, "data": data})
        return {"told": device in self.connected}
