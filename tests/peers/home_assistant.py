"""Home Assistant itself as a peer: started, onboarded and given an MQTT broker as a person would, over its own API.

    home_assistant.py classes        prints its device classes with their units and state classes, as JSON
    home_assistant.py run PORT       starts it with the MQTT broker on 127.0.0.1:PORT

Orders come as JSON lines on standard input, answers go out as JSON lines:
    {"states": true}                                     every entity with its state and attributes
    {"service": "number.set_value", "data": {…}}         calls a service
    {"list": "config/device_registry/list"}              what a websocket command gives
    {"log": true}                                        warnings and errors of its log
"""

import asyncio
import ctypes
import json
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request

PATIENCE_S = 120


def classes():
    from homeassistant.components.binary_sensor import BinarySensorDeviceClass
    from homeassistant.components.number.const import DEVICE_CLASS_UNITS as numbers
    from homeassistant.components.sensor.const import DEVICE_CLASS_STATE_CLASSES, DEVICE_CLASS_UNITS
    from homeassistant.components.switch import SwitchDeviceClass

    def units(known):
        return [None if unit is None else str(unit) for unit in sorted(known, key=lambda unit: (unit is not None, str(unit)))]

    def sensor(name):
        states = sorted(map(str, DEVICE_CLASS_STATE_CLASSES.get(name, [])))
        return {"units": units(DEVICE_CLASS_UNITS[name]), "state_classes": states}

    return {
        "sensor": {str(name): sensor(name) for name in sorted(DEVICE_CLASS_UNITS)},
        "number": {str(name): units(known) for name, known in sorted(numbers.items())},
        "binary_sensor": sorted(map(str, BinarySensorDeviceClass)),
        "switch": sorted(map(str, SwitchDeviceClass)),
    }


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class HomeAssistant:
    def __init__(self, folder, broker):
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.token = None
        self.log = pathlib.Path(folder) / "home-assistant.log"
        pathlib.Path(folder, "configuration.yaml").write_text(
            f"http:\n  server_host: 127.0.0.1\n  server_port: {self.port}\nlogger:\n  default: warning\n"
        )
        # Ends with us, however we end.
        orphan = lambda: ctypes.CDLL(None).prctl(1, signal.SIGTERM)
        words = [sys.executable, "-m", "homeassistant", "-c", folder, "--skip-pip", "--log-no-color"]
        self.process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=orphan
        )
        self.wait()
        self.onboard()
        self.add_mqtt(broker)

    def ask(self, method, path, body=None, form=False):
        data, headers = None, {}
        if body is not None:
            data = urllib.parse.urlencode(body).encode() if form else json.dumps(body).encode()
            headers["Content-Type"] = "application/x-www-form-urlencoded" if form else "application/json"
        if self.token:
            headers["Authorization"] = f"Bearer {self.token}"
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{method} {path}: {error.code} {error.read().decode(errors='replace')}") from error

    def wait(self):
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise RuntimeError(f"Home Assistant ended with {self.process.returncode}")
            try:
                return self.ask("GET", "/api/onboarding")
            except (OSError, RuntimeError):
                time.sleep(0.25)
        raise RuntimeError("Home Assistant does not answer")

    def onboard(self):
        client = self.url + "/"
        user = {"client_id": client, "name": "Test", "username": "test", "password": "only for this run", "language": "en"}
        code = self.ask("POST", "/api/onboarding/users", user)["auth_code"]
        grant = {"grant_type": "authorization_code", "code": code, "client_id": client}
        self.token = self.ask("POST", "/auth/token", grant, form=True)["access_token"]

    def add_mqtt(self, broker):
        flow = self.ask("POST", "/api/config/config_entries/flow", {"handler": "mqtt"})
        done = self.ask("POST", f"/api/config/config_entries/flow/{flow['flow_id']}", {"broker": "127.0.0.1", "port": broker})
        if done.get("type") != "create_entry":
            raise RuntimeError(f"the MQTT integration was not added: {done}")

    def list(self, command):
        import aiohttp

        async def talk():
            async with aiohttp.ClientSession() as session, session.ws_connect(self.url + "/api/websocket") as socket:
                await socket.receive_json()
                await socket.send_json({"type": "auth", "access_token": self.token})
                await socket.receive_json()
                await socket.send_json({"id": 1, "type": command})
                return (await socket.receive_json())["result"]

        return asyncio.run(talk())

    def obey(self, order):
        if "states" in order:
            return {"states": self.ask("GET", "/api/states")}
        if "service" in order:
            domain, service = order["service"].split(".")
            return {"changed": self.ask("POST", f"/api/services/{domain}/{service}", order.get("data", {}))}
        if "list" in order:
            return {"list": self.list(order["list"])}
        if "log" in order:
            lines = self.log.read_text(errors="replace").splitlines()
            return {"log": [line for line in lines if " WARNING " in line or " ERROR " in line]}
        raise RuntimeError(f"no such order: {order}")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def run(broker):
    with tempfile.TemporaryDirectory() as folder:
        peer = HomeAssistant(folder, broker)
        print(json.dumps({"ready": peer.port}), flush=True)
        try:
            for line in sys.stdin:
                try:
                    answer = {"ok": True, **peer.obey(json.loads(line))}
                except Exception as error:  # the test shows it
                    answer = {"ok": False, "error": str(error)}
                print(json.dumps(answer), flush=True)
        finally:
            peer.stop()


if __name__ == "__main__":
    if sys.argv[1] == "classes":
        print(json.dumps(classes(), ensure_ascii=False, indent=1))
    else:
        run(int(sys.argv[2]))
