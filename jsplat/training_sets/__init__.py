"""Labelled pictures that a parser learns from: jsplat's own auxiliary sets and public ones."""
