"""The trained weights that advice names where a person has few images; docs/guidance.md has a table of others."""

NAME = "hf:facebook/deit-tiny-patch16-224"
ABOUT = "5.7 million parameters, 23 MB, Apache 2.0"
