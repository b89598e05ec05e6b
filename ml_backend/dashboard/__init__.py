"""The pages that show people what the backend does. `views.py` has the routes, `templates/` what they show."""
