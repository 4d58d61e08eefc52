# shim.py FOLDER PORT DATA: ClickHouse's HTTP interface, as far as the bridge and the tests use it, for an engine that is only a Python module.
# There is neither Keeper nor a user in it.
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, urlsplit

folder, port, data = sys.argv[1:]
sys.path.insert(0, folder)
import _chdb

# Of all parameters only those that are no settings.
NO_SETTINGS = {"query", "default_format", "database", "user", "password", "session_id", "compress", "decompress", "wait_end_of_query"}
# The engine lives as long as one connection does.
first = _chdb.connect("file:" + data)


def answer(parameters, sql):
    connection = _chdb.connect("file:" + data)
    try:
        for name, value in parameters.items():
            if name not in NO_SETTINGS:
                quoted = value.replace("\\", "\\\\").replace("'", "\\'")
                connection.query(f"SET {name} = '{quoted}'", "Null")
        return bytes(connection.query(sql, parameters.get("default_format", "TabSeparated")).bytes())
    finally:
        connection.close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        self.respond(b"")

    def do_POST(self):
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b""
            while size := int(self.rfile.readline().split(b";")[0], 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.respond(body)

    def respond(self, body):
        parameters = dict(parse_qsl(urlsplit(self.path).query, keep_blank_values=True))
        sql = "\n".join(part for part in [parameters.get("query", ""), body.decode()] if part).strip()
        status, code = 200, None
        try:
            text = answer(parameters, sql)
        except Exception as error:
            status, text = 500, f"{error}\n".encode()
            code = re.search(r"Code: (\d+)", str(error))
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        if code:
            self.send_header("X-ClickHouse-Exception-Code", code[1])
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


ThreadingHTTPServer.daemon_threads = True
ThreadingHTTPServer(("127.0.0.1", int(port)), Handler).serve_forever()
