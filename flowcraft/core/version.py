"""The version of FlowCraft; here, on the lowest floor, because every floor may name it."""

VERSION = "0.1.0"
