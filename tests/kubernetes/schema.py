"""Holds the manifests on standard input against the schema of Kubernetes, and of the CustomResourceDefinitions in the files given."""

import sys

import jsonschema
import kubernetes_validate
import yaml

RELEASE = "1.33"


def strict(schema):
    """As the API server with --validate=strict: a field that the schema does not know is a fault."""
    if isinstance(schema, dict):
        if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
            schema.setdefault("additionalProperties", False)
        for value in schema.values():
            strict(value)
    elif isinstance(schema, list):
        for value in schema:
            strict(value)
    return schema


def definitions(paths):
    found = {}
    for path in paths:
        with open(path) as file:
            definition = yaml.safe_load(file)["spec"]
        for version in definition["versions"]:
            schema = version["schema"]["openAPIV3Schema"]
            # Of any kind.
            schema["properties"]["metadata"] = {}
            found[f"{definition['group']}/{version['name']}", definition["names"]["kind"]] = strict(schema)
    return found


def main():
    custom = definitions(sys.argv[1:])
    count = 0
    for manifest in yaml.safe_load_all(sys.stdin):
        kind = manifest["apiVersion"], manifest["kind"]
        name = f"{manifest['kind']} {manifest['metadata']['name']}"
        try:
            if kind in custom:
                jsonschema.validate(manifest, custom[kind])
            else:
                kubernetes_validate.validate(manifest, RELEASE, strict=True)
        except (kubernetes_validate.ValidationError, jsonschema.ValidationError) as error:
            sys.exit(f"{name}: {'.'.join(map(str, error.absolute_path))}: {error.message}")
        count += 1
        print(f"  {name}")
    assert count, "no manifest came in"


main()
