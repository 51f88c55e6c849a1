"""The pages a browser gets: the playground and the documentation, without a build step."""
