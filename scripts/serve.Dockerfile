# Serves a run on port 8000. Experimental: not built yet.
#   docker build -f scripts/serve.Dockerfile --build-arg RUN=outputs/cnn/DATE -t model .
#   docker run -p 8000:8000 -e ARCLIGHT_API_KEY=... model
FROM python:3.11-slim
RUN useradd --create-home arclight
WORKDIR /app
COPY pyproject.toml requirements.txt README.md LICENSE ./
COPY src src
COPY conf conf
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu -r requirements.txt '.[serve]'
ARG RUN
COPY ${RUN} run
USER arclight
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/ready')"]
CMD ["python", "-m", "arclight", "serve", "model=run", "--host", "0.0.0.0"]
