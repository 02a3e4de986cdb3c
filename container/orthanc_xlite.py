"""Python plugin of Orthanc: each radiograph that it stores is answered by the service, and keeps the reply as metadata.

    "Plugins": ["FOLDER/libOrthancPython.so"], "PythonScript": "FOLDER/orthanc_xlite.py", "PythonVerbose": false,
    "UserMetadata": {"xlite": 4200}

XLITE_URL is where the service is (default: this machine's port 8000), XLITE_TOKEN its token. The reply, or its error,
is at /instances/{id}/metadata/xlite. Instances of other modalities than CR, DX and RG are not sent. It answers after
Orthanc has stored, in a thread of its own: a slow service keeps no modality waiting. No proxy is used.
"""

import http.client
import json
import os
import queue
import threading
import time
import urllib.error
import urllib.request

import orthanc

URL = os.environ.get("XLITE_URL", "http://127.0.0.1:8000").rstrip("/") + "/v1/predict"
TOKEN = os.environ.get("XLITE_TOKEN", "")
MODALITIES = ("CR", "DX", "RG")
#: bytes that the service takes, and what it says of more
LARGEST = 32 << 20
TOO_LARGE = b'{"error": {"code": "too large", "sentence": "the file is larger than 32 MiB"}}'
#: what a service says that is busy, and what a proxy says before it
BUSY, NOT_ITS_OWN = 503, (502, 504)
#: seconds that a reply may take, and between tries while the service is busy or not there; tries
PATIENCE, PAUSE, TRIES = 60, 10, 30
#: the environment's proxy is for the world outside, not for images
OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))

stored: "queue.Queue[str]" = queue.Queue()


def on_stored(dicom, instance: str) -> None:
    """Only notes which: Orthanc's own interface may not be called from here."""
    tags = json.loads(dicom.GetInstanceSimplifiedJson())
    if tags.get("Modality") in MODALITIES:
        stored.put(instance)


def answer() -> None:
    while True:
        instance = stored.get()
        try:
            reply = asked(orthanc.RestApiGet(f"/instances/{instance}/file"))
            orthanc.RestApiPut(f"/instances/{instance}/metadata/xlite", reply)
        except Exception as error:  # an instance that was deleted meanwhile, for one: the next is answered all the same
            orthanc.LogError(f"xlite: {instance}: {error}")


def asked(body: bytes) -> bytes:
    """The service's reply as JSON, an error's too; asks again while it is busy or not there."""
    if len(body) > LARGEST:
        return TOO_LARGE
    why = ""
    for tried in range(1, TRIES + 1):
        try:
            status, reply = sent(body)
        except (OSError, http.client.HTTPException) as error:
            why = str(error)
        else:
            why = f"HTTP {status}"
            if is_reply(reply) and status not in NOT_ITS_OWN and (status != BUSY or tried == TRIES):
                return reply
        if tried < TRIES:
            time.sleep(PAUSE)
    raise RuntimeError(f"no reply in {TRIES} tries: {why}")


def sent(body: bytes) -> "tuple[int, bytes]":
    headers = {"Authorization": f"Bearer {TOKEN}"} if TOKEN else {}
    try:
        with OPENER.open(urllib.request.Request(URL, body, headers), timeout=PATIENCE) as reply:
            return reply.status, reply.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def is_reply(text: bytes) -> bool:
    """The service's are JSON; a proxy's page is none."""
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


orthanc.RegisterOnStoredInstanceCallback(on_stored)
threading.Thread(target=answer, daemon=True).start()
