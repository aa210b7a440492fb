"""People made from people, for parsers to learn from: other shapes, colours, hair and accessories, labels exact."""

from jsplat.variants.config import ColorConfig, ShapeConfig, VariantsConfig
from jsplat.variants.people import Person, Variants

__all__ = ["ColorConfig", "Person", "ShapeConfig", "Variants", "VariantsConfig"]
