"""From series to cells: pure drawing."""
