"""The server's `/openapi.json` as a measure: does a route exist, does a JSON value fit a schema. Reads schemas in no other dialect."""

import json
import re

from pages import Wrong

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
NAMES = {"integer": int, "number": (int, float), "string": str, "boolean": bool, "array": list, "object": dict, "null": type(None)}


class Contract:
    def __init__(self, document: dict):
        self.document = document
        self.paths = document["paths"]
        self.named: "set[tuple[str, str]]" = set()

    def find(self, path: str) -> "str | None":
        """The path of the document that a path of a page means; its last parts may be real ids or `{id}`."""
        for template in self.paths:
            if re.fullmatch(re.sub(r"\\{[a-z_]+\\}", "[^/]+", re.escape(template)), path):
                return template
        return None

    def check_route(self, method: str, address: str) -> None:
        path, _, query = address.partition("?")
        template = self.find(path)
        if template is None or method.lower() not in self.paths[template]:
            raise Wrong(f"/openapi.json has no `{method} {path}`")
        operation = self.paths[template][method.lower()]
        known = {parameter["name"] for parameter in operation.get("parameters", []) if parameter["in"] == "query"}
        for name in re.findall(r"([a-z_]+)=", query):
            if name not in known:
                raise Wrong(f"`{method} {path}` has no `?{name}=`; /openapi.json lists {sorted(known) or 'none'}")
        self.named.add((method, template))

    def check_path(self, path: str) -> None:
        """A path without a method: one of the document's, or the beginning of some."""
        if self.find(path):
            self.named |= {(method.upper(), self.find(path)) for method in self.paths[self.find(path)] if "{" not in path}
        elif path not in ("/", "/openapi.json") and not any(known.startswith(path.rstrip("/") + "/") for known in self.paths):
            raise Wrong(f"/openapi.json has no path `{path}`")

    def request(self, method: str, path: str) -> dict:
        return self.content(self.operation(method, path)["requestBody"])

    def response(self, method: str, path: str, status: str) -> dict:
        return self.content(self.operation(method, path)["responses"][status])

    def operation(self, method: str, path: str) -> dict:
        self.check_route(method, path)
        return self.paths[self.find(path)][method.lower()]

    def content(self, body: dict) -> dict:
        return self.resolve(next(iter(body["content"].values()))["schema"])

    def resolve(self, schema: dict) -> dict:
        while "$ref" in schema:
            schema = self.document["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        return schema

    def fits(self, value: object, schema: dict, whole: bool, at: str = "body") -> None:
        """`whole`: what the schema requires must be there; else the sample may leave fields out. Fields that it does not have are wrong."""
        schema = self.resolve(schema)
        for choice in ("oneOf", "anyOf"):
            if choice in schema:
                self.fits_one(value, schema[choice], whole, at)
        for part in schema.get("allOf", []):
            self.fits(value, part, whole, at)
        kinds = schema.get("type", [])
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if kinds and not any(isinstance(value, NAMES[kind]) and not (kind != "boolean" and isinstance(value, bool)) for kind in kinds):
            raise Wrong(f"{at} is {json.dumps(value)}, no {' or '.join(kinds)}")
        if "enum" in schema and value not in schema["enum"]:
            raise Wrong(f"{at} is {json.dumps(value)}, none of {schema['enum']}")
        if isinstance(value, list):
            for index, item in enumerate(value):
                self.fits(item, schema.get("items", {}), whole, f"{at}[{index}]")
        if isinstance(value, dict) and "properties" in schema:
            self.fits_fields(value, schema, whole, at)

    def fits_fields(self, value: dict, schema: dict, whole: bool, at: str) -> None:
        for name, item in value.items():
            if name in schema["properties"]:
                self.fits(item, schema["properties"][name], whole, f"{at}.{name}")
            elif "additionalProperties" not in schema or schema["additionalProperties"] is False:
                raise Wrong(f"{at} has no field `{name}`; it has {', '.join(schema['properties'])}")
        for name in schema.get("required", []):
            if whole and name not in value:
                raise Wrong(f"{at} lacks `{name}`")

    def fits_one(self, value: object, choices: "list[dict]", whole: bool, at: str) -> None:
        errors = []
        for choice in choices:
            try:
                return self.fits(value, choice, whole, at)
            except Wrong as error:
                errors.append(str(error))
        raise Wrong("; or ".join(errors))
