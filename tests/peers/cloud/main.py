"""A cloud as a peer: the vendor's service, which speaks Paho to a mosquitto, behind the vendor's door.

    main.py aws|azure|thingsboard PORT FOLDER     PORT is that of the mosquitto; FOLDER holds ca.crt, server.crt, server.key

Orders come as JSON lines on standard input, answers go out as JSON lines:
    {"link": "down"}, {"link": "up"}              ends every connection and takes no new one; takes them again
    {"strangers": true}                           how clients fare that do not keep to the door's rules
    {"broken": true}                              rules that were broken so far, and connections refused
    anything else is the service's: see its file
"""

import importlib
import json
import socket
import ssl
import sys

import paho.mqtt.client as mqtt

from door import Door


def stranger(door, folder, alpn, certificate):
    """What becomes of a client that says nothing but hello to TLS."""
    context = ssl.create_default_context(cafile=f"{folder}/ca.crt")
    if alpn:
        context.set_alpn_protocols([alpn])
    if certificate:
        context.load_cert_chain(f"{folder}/client.crt", f"{folder}/client.key")
    try:
        with socket.create_connection(("127.0.0.1", door.port), 5) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as tls:
                tls.settimeout(1)
                return "closed" if tls.recv(1) == b"" else "answered"
    except TimeoutError:
        return "waited for"
    except (ssl.SSLError, ConnectionError) as error:
        return f"refused: {type(error).__name__}"


def main():
    vendor, broker, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    module = importlib.import_module(vendor)
    client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, client_id="the-cloud", protocol=mqtt.MQTTv311)
    client.max_inflight_messages_set(1000)

    def say(topic, body):
        client.publish(f"down/{topic}", b"" if body is None else json.dumps(body), qos=1)

    service = module.Service(say)

    def hear(_client, _data, message):
        service.hear(message.topic.removeprefix("up/"), message.payload)

    def ready(*_):
        door = Door(service.rules, broker, folder)
        service.door = door
        print(json.dumps({"ready": door.port}), flush=True)

    client.on_message = hear
    client.on_connect = lambda client, *_: client.subscribe("up/#", qos=1)
    client.on_subscribe = ready
    client.connect("127.0.0.1", broker)
    client.loop_start()
    for line in sys.stdin:
        order = json.loads(line)
        door = service.door
        if "link" in order:
            door.link(order["link"])
            answer = {}
        elif "strangers" in order:
            alpn = service.rules.alpn
            answer = {"without ALPN": stranger(door, folder, None, True), "without a certificate": stranger(door, folder, alpn, False),
                      "with both": stranger(door, folder, alpn, True)}
            door.refused.clear()
        elif "broken" in order:
            answer = {"broken": door.broken, "refused": door.refused}
        else:
            answer = service.order(order)
        print(json.dumps(answer), flush=True)


main()
