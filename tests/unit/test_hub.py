"""An exported directory is uploaded in one commit; a failure leaves it whole and says the remedy.

The hub is a server on the loopback that knows the few calls of its client.
"""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub.constants
import pytest

from condenser_jax.errors import UserError
from condenser_jax.hf.hub import check_repository, push

REPOSITORY = "somebody/my-encoder"


class FakeHub(BaseHTTPRequestHandler):
    """Keeps the files of every commit; refuses commits when `status` says so."""

    files: dict = {}
    created: list = []
    status = 200

    @property
    def address(self):
        return f"http://{self.headers['Host']}/{REPOSITORY}"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/repos/create":
            self.created.append((json.loads(body), self.headers["Authorization"]))
            self.answer({"url": self.address})
        elif self.path == "/api/validate-yaml":
            self.answer({"errors": [], "warnings": []})
        elif self.path.endswith("/preupload/main"):
            wanted = json.loads(body)["files"]
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in wanted
            ]
            self.answer({"files": files})
        elif self.path.endswith("/commit/main") and self.status == 200:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    content = base64.b64decode(entry["value"]["content"])
                    self.files[entry["value"]["path"]] = content
                elif entry["key"] == "deletedFile":
                    del self.files[entry["value"]["path"]]
            self.answer({"commitUrl": f"{self.address}/commit/1", "commitOid": "1"})
        else:
            self.answer({"error": "You have no right to write here"}, self.status)

    def do_GET(self):
        if "/tree/main" in self.path:
            files = [{"type": "file", "path": p, "size": 1, "oid": "0"} for p in self.files]
            return self.answer(files)
        self.answer({"error": "not here"}, 404)

    def answer(self, content, status=200):
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(monkeypatch):
    """A fake hub, which the client finds online and with a token."""
    handler = type("Hub", (FakeHub,), {"files": {}, "created": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    constants = huggingface_hub.constants
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    yield handler
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def directory(tmp_path):
    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "README.md").write_text("---\nlibrary_name: sentence-transformers\n---\n# model\n")
    (folder / "model.safetensors").write_bytes(bytes(range(256)))
    (folder / "1_Pooling" / "config.json").write_text("{}")
    return folder


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_every_file_arrives_in_a_repository_that_is_made_for_it(hub, directory):
    before = content(directory)
    address = push(directory, REPOSITORY)
    assert address.endswith(f"/{REPOSITORY}") and address.startswith("http://127.0.0.1")
    assert hub.files == before == content(directory)
    ((made, authorization),) = hub.created
    assert (made["organization"], made["name"]) == ("somebody", "my-encoder")
    assert authorization == "Bearer hf_secret"


def test_what_an_earlier_export_left_and_this_one_has_not_goes_and_the_rest_stays(hub, directory):
    """Whoever reads the repository would take its query encoder for that of this one."""
    old = ["query_encoder/model.safetensors", "encoder.onnx", "condenser_head.safetensors"]
    hub.files.update(dict.fromkeys([*old, "my-notes.md", "README.md"], b"old"))
    push(directory, REPOSITORY)
    assert hub.files == content(directory) | {"my-notes.md": b"old"}


def test_a_refused_upload_leaves_the_export_whole_and_says_how_to_go_on(hub, directory):
    hub.status = 403
    before = content(directory)
    with pytest.raises(UserError) as found:
        push(directory, REPOSITORY)
    text = str(found.value)
    assert text.startswith(f"{directory} is exported and whole, but {REPOSITORY} could not be wri")
    again = f"then: hf upload {REPOSITORY} {directory} --delete='query_encoder/*' --"
    assert "403" in text and again in text
    assert "hf_secret" not in text and "\n" not in text
    assert content(directory) == before and not hub.files


def test_a_hub_that_is_not_there_is_one_line(directory, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(UserError, match="is exported and whole, but somebody/my-encoder could not"):
        push(directory, REPOSITORY)


def test_a_name_or_a_token_that_cannot_be_are_refused_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    check_repository(REPOSITORY)
    with pytest.raises(UserError, match="'my encoder!' cannot name a repository of the hub; expec"):
        check_repository("my encoder!")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    with pytest.raises(UserError, match="no token to write somebody/my-encoder with; run `hf auth"):
        check_repository(REPOSITORY)
