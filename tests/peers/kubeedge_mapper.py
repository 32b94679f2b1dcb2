"""A mapper of KubeEdge's device mapper interface, on grpcio: what Google's own gRPC makes of the .proto.

    kubeedge_mapper.py FOLDER_OF_DMI_PROTO

Each line of standard input is a JSON object, each answer a line of standard output:
    {"serve": "/path/m.sock"}                     serves DeviceMapperService there; {"serve": null} ends it
    {"register": {…MapperRegisterRequest…}, "at": "/path/dmi.sock", "authority": "…"}   the answer, or {"code", "details"}
    {"report": {…ReportDeviceStatusRequest…}, "at": …}
    {"states": {…ReportDeviceStatesRequest…}, "at": …}
    {"reports": N, "report": {…}, "at": …}        N reports, each on a connection of its own as the mapper-framework
                                                  makes them; says how many were taken and how long it took
    {"calls": true}                               the calls that came since the last time: [[name, request], …]
    {"refuse": "text"}                            from now on calls end with that text; null takes them again
Messages are protobuf's own JSON. The first line of output is {"ready": true}.
"""

import json
import os
import sys
import tempfile
import threading
import time
from concurrent import futures

import grpc
from google.protobuf import json_format, wrappers_pb2  # noqa: F401  the wrappers are packed in messages
from grpc_tools import protoc

folder = tempfile.mkdtemp()
include = os.path.join(os.path.dirname(protoc.__file__), "_proto")
made = protoc.main(["", f"-I{sys.argv[1]}", f"-I{include}", f"--python_out={folder}", f"--grpc_python_out={folder}", "dmi.proto"])
assert made == 0, "dmi.proto does not compile"
sys.path.insert(0, folder)

import dmi_pb2 as messages  # noqa: E402
import dmi_pb2_grpc as services  # noqa: E402

lock = threading.Lock()
calls = []
refusal = None


def plain(message):
    return json_format.MessageToDict(message, always_print_fields_with_no_presence=True)


class Mapper(services.DeviceMapperServiceServicer):
    """Notes every call; the answers are as the mapper-framework gives them."""

    def note(self, name, request, context, answer):
        with lock:
            calls.append([name, plain(request)])
        if refusal is not None:
            context.abort(grpc.StatusCode.UNKNOWN, refusal)
        return answer

    def RegisterDevice(self, request, context):
        return self.note("RegisterDevice", request, context, messages.RegisterDeviceResponse(deviceName=request.device.name))

    def RemoveDevice(self, request, context):
        return self.note("RemoveDevice", request, context, messages.RemoveDeviceResponse())

    def UpdateDevice(self, request, context):
        return self.note("UpdateDevice", request, context, messages.UpdateDeviceResponse())

    def CreateDeviceModel(self, request, context):
        return self.note("CreateDeviceModel", request, context, messages.CreateDeviceModelResponse(deviceModelName=request.model.name))

    def UpdateDeviceModel(self, request, context):
        return self.note("UpdateDeviceModel", request, context, messages.UpdateDeviceModelResponse())

    def RemoveDeviceModel(self, request, context):
        return self.note("RemoveDeviceModel", request, context, messages.RemoveDeviceModelResponse())


def ask(order, method, kind, content):
    """One call on a connection of its own."""
    options = [("grpc.default_authority", order["authority"])] if order.get("authority") else []
    # Channels to one place share a connection unless they are told not to.
    options.append(("grpc.use_local_subchannel_pool", 1))
    with grpc.insecure_channel("unix:" + order["at"], options=options) as channel:
        stub = services.DeviceManagerServiceStub(channel)
        try:
            return plain(getattr(stub, method)(json_format.ParseDict(content, kind()), timeout=5))
        except grpc.RpcError as error:
            return {"code": error.code().name, "details": error.details()}


def many(order):
    taken, first, begin = 0, None, time.monotonic()
    for _ in range(order["reports"]):
        answer = ask(order, "ReportDeviceStatus", messages.ReportDeviceStatusRequest, order["report"])
        taken += "code" not in answer
        first = first or answer.get("details")
    return {"taken": taken, "refused": first, "seconds": time.monotonic() - begin}


def main():
    global refusal
    server = None
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        order = json.loads(line)
        answer = {}
        if "serve" in order:
            if server is not None:
                server.stop(None).wait()
                server = None
            if order["serve"] is not None:
                if os.path.exists(order["serve"]):
                    os.unlink(order["serve"])
                server = grpc.server(futures.ThreadPoolExecutor(4))
                services.add_DeviceMapperServiceServicer_to_server(Mapper(), server)
                server.add_insecure_port("unix:" + order["serve"])
                server.start()
        elif "register" in order:
            answer = ask(order, "MapperRegister", messages.MapperRegisterRequest, order["register"])
        elif "reports" in order:
            answer = many(order)
        elif "report" in order:
            answer = ask(order, "ReportDeviceStatus", messages.ReportDeviceStatusRequest, order["report"])
        elif "states" in order:
            answer = ask(order, "ReportDeviceStates", messages.ReportDeviceStatesRequest, order["states"])
        elif "calls" in order:
            with lock:
                answer = {"calls": list(calls)}
                calls.clear()
        elif "refuse" in order:
            refusal = order["refuse"]
        print(json.dumps(answer), flush=True)


main()
