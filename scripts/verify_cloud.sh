#!/usr/bin/env bash
# Ten minutes with a Google Cloud project: builds the CPU image there, deploys it on Cloud Run and
# on Vertex AI (no GPU), streams an answer from each, and removes what it has made.
#
#   scripts/verify_cloud.sh PROJECT [REGION] [cloudrun|vertex|both]
#
# Needs gcloud, signed in (gcloud auth login; gcloud auth application-default login), curl, python3
# and this package with the extras cloudrun and vertex. Costs below one US dollar; KEEP=1 leaves
# everything in place. What it prints at the end belongs into docs/deploy/verified.md.
set -euo pipefail

PROJECT=${1:?usage: scripts/verify_cloud.sh PROJECT [REGION] [cloudrun|vertex|both]}
REGION=${2:-us-central1}
WHAT=${3:-both}
NAME=llm-gateway-verify
VERSION=$(date -u +%Y%m%d-%H%M%S)
IMAGE=$REGION-docker.pkg.dev/$PROJECT/$NAME/cpu:$VERSION
WORK=$(mktemp -d)
RESULTS=$WORK/results
touch "$RESULTS"
cd "$(dirname "$0")/.."

passed() { echo "| $1 | yes | $2 |" | tee -a "$RESULTS" >&2; }
failed() { echo "| $1 | **no** | $2 |" | tee -a "$RESULTS" >&2; }

report() {
    local status=$?
    if [ "${KEEP:-}" != 1 ]; then
        [ ! -f "$WORK/cloudrun.yaml" ] || llm-gateway deploy cloudrun destroy "$WORK/cloudrun.yaml" --yes || true
        [ ! -f "$WORK/vertex.yaml" ] || llm-gateway deploy vertex monitor "$WORK/vertex.yaml" --remove --yes || true
        [ ! -f "$WORK/vertex.yaml" ] || llm-gateway deploy vertex destroy "$WORK/vertex.yaml" --yes || true
        gcloud secrets delete $NAME-keys --project="$PROJECT" --quiet || true
        gcloud artifacts repositories delete $NAME --location="$REGION" --project="$PROJECT" --quiet || true
    fi
    printf '\nRun on %s in %s, version %s:\n\n| Check | Passed | |\n|---|---|---|\n' \
        "$(date -u +%Y-%m-%d)" "$REGION" "$(llm-gateway --version)"
    cat "$RESULTS"
    rm -rf "$WORK"
    exit "$status"
}
trap report EXIT

# stream CHECK URL HEADER...: whether an answer comes as events, the first before the last.
stream() {
    local check=$1 url=$2
    shift 2
    local headers=()
    for header in "$@"; do headers+=(-H "$header"); done
    if curl -sSN --max-time 300 --fail-with-body "$url/v1/chat/completions" "${headers[@]}" \
        -H "Content-Type: application/json" \
        -d '{"model": "bundled", "stream": true, "messages": [{"role": "user", "content": "What is the capital of France?"}]}' \
        > "$WORK/answer" && grep -q '^data: \[DONE\]' "$WORK/answer"; then
        passed "$check" "$(grep -c '^data: {' "$WORK/answer") events"
    else
        failed "$check" "$(head -c 200 "$WORK/answer" | tr '\n|' '  ')"
    fi
}

field() { python3 -c 'import json, sys; print(json.load(sys.stdin)[sys.argv[1]])' "$1"; }

gcloud services enable run.googleapis.com aiplatform.googleapis.com artifactregistry.googleapis.com \
    secretmanager.googleapis.com cloudbuild.googleapis.com --project="$PROJECT"
gcloud artifacts repositories create $NAME --repository-format=docker --location="$REGION" \
    --project="$PROJECT" || true
cat > "$WORK/build.yaml" <<EOF
steps:
- name: gcr.io/cloud-builders/docker
  env: [DOCKER_BUILDKIT=1]
  args: [build, -f, deploy/docker/Dockerfile.cpu, -t, $IMAGE, .]
images: [$IMAGE]
EOF
gcloud builds submit --config="$WORK/build.yaml" --project="$PROJECT"
passed "the CPU image builds" "$IMAGE"

if [ "$WHAT" != vertex ]; then
    KEY=$(openssl rand -hex 32)
    printf %s "$KEY" > "$WORK/key"
    gcloud secrets create $NAME-keys --data-file="$WORK/key" --project="$PROJECT"
    NUMBER=$(gcloud projects describe "$PROJECT" --format='value(projectNumber)')
    gcloud secrets add-iam-policy-binding $NAME-keys --project="$PROJECT" \
        --member="serviceAccount:$NUMBER-compute@developer.gserviceaccount.com" \
        --role=roles/secretmanager.secretAccessor
    cat > "$WORK/cloudrun.yaml" <<EOF
project: $PROJECT
region: $REGION
name: $NAME
image: $IMAGE
cpu: 2
memory: 4Gi
environment: {MODEL_NAME: bundled}
secrets:
  API_KEYS: {secret: $NAME-keys, version: 1}
scaling: {min: 0, max: 1}
access:
  ingress: all
  invokers: ["user:$(gcloud config get-value account)"]
EOF
    llm-gateway deploy cloudrun apply "$WORK/cloudrun.yaml" --yes
    passed "Cloud Run: apply" ""
    llm-gateway deploy cloudrun apply "$WORK/cloudrun.yaml" --yes
    passed "Cloud Run: a second apply" ""
    URL=$(llm-gateway deploy cloudrun status "$WORK/cloudrun.yaml" --json | field url)
    stream "Cloud Run: a streamed answer" "$URL" "Authorization: Bearer $KEY" \
        "X-Serverless-Authorization: Bearer $(gcloud auth print-identity-token)"
    CODE=$(curl -sS -o /dev/null -w '%{http_code}' "$URL/v1/models" -H "Authorization: Bearer $KEY")
    if [ "$CODE" = 403 ]; then
        passed "Cloud Run: private" "403 without an identity"
    else
        failed "Cloud Run: private" "$CODE without an identity"
    fi
fi

if [ "$WHAT" != cloudrun ]; then
    cat > "$WORK/vertex.yaml" <<EOF
project: $PROJECT
region: $REGION
name: verify
mode: invoke
deployments:
  - name: cpu
    image: $IMAGE
    environment: {MODEL_NAME: bundled, ENGINE: onnx}
    machine: {type: e2-standard-4}
    scaling: {min_replicas: 1, max_replicas: 1}
EOF
    llm-gateway deploy vertex apply "$WORK/vertex.yaml" --yes
    passed "Vertex AI: apply" ""
    llm-gateway deploy vertex apply "$WORK/vertex.yaml" --yes
    passed "Vertex AI: a second apply" ""
    URL=$(llm-gateway deploy vertex status "$WORK/vertex.yaml" --json | field url)
    stream "Vertex AI: a streamed answer" "$URL" "Authorization: Bearer $(gcloud auth print-access-token)"
    llm-gateway deploy vertex monitor "$WORK/vertex.yaml" --yes
    passed "Vertex AI: alert policies and dashboard" ""
fi
