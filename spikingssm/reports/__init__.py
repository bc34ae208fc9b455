"""Results for people: tables, pages, an animation."""
