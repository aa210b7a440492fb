"""Settings that people run, as TOML: `jsplat COMMAND --config NAME` finds NAME.toml here, installed or not."""
