"""Python plugin of Orthanc: each radiograph that it stores is answered by the service, and keeps the reply as metadata.

    "Plugins": ["FOLDER/libOrthancPython.so"], "PythonScript": "FOLDER/orthanc_xlite.py", "PythonVerbose": false,
    "UserMetadata": {"xlite": 4200}

XLITE_URL is where the service is (default: this machine's port 8000), XLITE_TOKEN its token. The reply, or its error,
is at /instances/{id}/metadata/xlite. Instances of other modalities than CR, DX, RG and PX are not sent. It answers
after Orthanc has stored, in a thread of its own: a slow service keeps no modality waiting.
"""

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
MODALITIES = ("CR", "DX", "RG", "PX")
#: seconds that a reply may take, and between tries while the service is busy or not there; tries
PATIENCE, PAUSE, TRIES = 60, 10, 30

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
    headers = {"Authorization": f"Bearer {TOKEN}"} if TOKEN else {}
    for tried in range(1, TRIES + 1):
        try:
            with urllib.request.urlopen(urllib.request.Request(URL, body, headers), timeout=PATIENCE) as reply:
                return reply.read()
        except urllib.error.HTTPError as error:
            if error.code != 503 or tried == TRIES:
                return error.read()
        except OSError:
            if tried == TRIES:
                raise
        time.sleep(PAUSE)
    raise AssertionError


orthanc.RegisterOnStoredInstanceCallback(on_stored)
threading.Thread(target=answer, daemon=True).start()
