"""The plan's JSON Schema, for editors."""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from smooth_orchestrator.config import PlanFile

__all__ = ["json_schema"]


class _PlanSchema(GenerateJsonSchema):
    """Pydantic's generator, for a format in which nothing is null and no key goes unnamed."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        generated = super().default_schema(schema)
        if generated.get("default", ...) is None:
            del generated["default"]
        return generated

    def dict_schema(self, schema: core_schema.DictSchema) -> JsonSchemaValue:
        generated = super().dict_schema(schema)
        if "patternProperties" in generated:
            generated["additionalProperties"] = False
        return generated

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ANN401 - pydantic's union of all its schemas
        del schema
        return False


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema (2020-12) that a plan's shape obeys."""
    schema = PlanFile.model_json_schema(schema_generator=_PlanSchema)
    return {
        "$schema": _PlanSchema.schema_dialect,
        **schema,
        "title": "smooth-orchestrator deploy plan",
    }
