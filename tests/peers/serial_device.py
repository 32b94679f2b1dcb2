"""A serial device of pyserial, driven by the tests over standard input.

    serial_device.py PATH BAUD

Each line of standard input is a JSON object, each answer a line of standard output:
    {"hex": "0102"}                              sends these bytes
    {"text": "R1234\\r"}                         sends this text
    {"nmea": ["GP", "RMC", ["225446", …]]}       sends a sentence that pynmea2 has made; the answer says what pynmea2 reads in it
    {"thermostat": 21.5}                         from now on answers "?" with the set point, and takes "SP=22.0"; above 30 it says ERR
    {"setpoint": true}                           says the thermostat's set point and how many writes it took
The first line of output is {"ready": true}.
"""

import json
import sys
import threading
import time

import pynmea2
import serial


class Thermostat(threading.Thread):
    def __init__(self, port, setpoint):
        super().__init__(daemon=True)
        self.port, self.setpoint, self.writes = port, setpoint, 0

    def run(self):
        while True:
            line = self.port.readline().decode("ascii", "replace").strip()
            if line == "?":
                self.say(f"SP={self.setpoint:.1f}")
            elif line.startswith("SP="):
                self.writes += 1
                wanted = float(line[3:])
                if wanted > 30:
                    self.say("ERR RANGE")
                else:
                    self.setpoint = wanted
                    self.say(f"SP={self.setpoint:.1f}")

    def say(self, text):
        # Slowly, and with a line between that nobody asked for.
        self.port.write(b"T=19.25\r\n")
        data = text.encode() + b"\r\n"
        self.port.write(data[:3])
        self.port.flush()
        time.sleep(0.03)
        self.port.write(data[3:])


def main():
    port = serial.Serial(sys.argv[1], int(sys.argv[2]), timeout=0.2)
    print(json.dumps({"ready": True}), flush=True)
    thermostat = None
    for line in sys.stdin:
        order = json.loads(line)
        answer = {"ok": True}
        if "hex" in order:
            port.write(bytes.fromhex(order["hex"]))
        elif "text" in order:
            port.write(order["text"].encode("latin-1"))
        elif "nmea" in order:
            talker, kind, fields = order["nmea"]
            sentence = getattr(pynmea2, kind)(talker, kind, tuple(fields))
            text = str(sentence)
            parsed = pynmea2.parse(text, check=True)
            port.write(text.encode() + b"\r\n")
            for name in ("latitude", "longitude", "altitude"):
                if hasattr(parsed, name):
                    answer[name] = float(getattr(parsed, name))
            answer["sentence"] = text
        elif "thermostat" in order:
            thermostat = Thermostat(port, order["thermostat"])
            thermostat.start()
        elif "setpoint" in order:
            answer.update(setpoint=thermostat.setpoint, writes=thermostat.writes)
        port.flush()
        print(json.dumps(answer), flush=True)


main()
