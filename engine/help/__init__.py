"""What `help TOPIC` tells: topics in Markdown, written in `text/` or made from the code, and how they are drawn."""
