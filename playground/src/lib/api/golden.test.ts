// The server's own examples against the page's types: svelte-check compares them, so that neither side can rename a field alone; the values of
// closed sets (roles, states), which a JSON import widens to `string`, are compared when this runs. The server's tests read the same files.
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import accountInfo from '../../../../crates/wire/golden/account_info.json';
import apiKeyInfo from '../../../../crates/wire/golden/api_key_info.json';
import chat from '../../../../crates/wire/golden/chat.json';
import chatDocument from '../../../../crates/wire/golden/chat_document.json';
import chatList from '../../../../crates/wire/golden/chat_list.json';
import chunkDelta from '../../../../crates/wire/golden/chunk_delta.json';
import chunkDeltaTop from '../../../../crates/wire/golden/chunk_delta_top.json';
import chunkError from '../../../../crates/wire/golden/chunk_error.json';
import chunkInfo from '../../../../crates/wire/golden/chunk_info.json';
import chunkProgress from '../../../../crates/wire/golden/chunk_progress.json';
import chunkReasoning from '../../../../crates/wire/golden/chunk_reasoning.json';
import chunkStopCreate from '../../../../crates/wire/golden/chunk_stop_create.json';
import chunkStopEvaluate from '../../../../crates/wire/golden/chunk_stop_evaluate.json';
import chunkStopGenerate from '../../../../crates/wire/golden/chunk_stop_generate.json';
import chunkStopTrain from '../../../../crates/wire/golden/chunk_stop_train.json';
import createKeyResponse from '../../../../crates/wire/golden/create_key_response.json';
import error from '../../../../crates/wire/golden/error.json';
import evaluateResponse from '../../../../crates/wire/golden/evaluate_response.json';
import generateResponse from '../../../../crates/wire/golden/generate_response.json';
import invitationInfo from '../../../../crates/wire/golden/invitation_info.json';
import invitationResponse from '../../../../crates/wire/golden/invitation_response.json';
import message from '../../../../crates/wire/golden/message.json';
import modelInfo from '../../../../crates/wire/golden/model_info.json';
import modelInfoBase from '../../../../crates/wire/golden/model_info_base.json';
import pullInfo from '../../../../crates/wire/golden/pull_info.json';
import revisionInfo from '../../../../crates/wire/golden/revision_info.json';
import revisionInfoRollback from '../../../../crates/wire/golden/revision_info_rollback.json';
import sessionInfo from '../../../../crates/wire/golden/session_info.json';
import statusInfo from '../../../../crates/wire/golden/status_info.json';
import trainResponse from '../../../../crates/wire/golden/train_response.json';
import trainResponseZero from '../../../../crates/wire/golden/train_response_zero_advantage.json';
import usageSum from '../../../../crates/wire/golden/usage_sum.json';
import usageSumPage from '../../../../crates/wire/golden/usage_sum_page.json';
import { objects } from './ndjson';
import type * as Api from './types';

/** A type with its closed sets of strings opened, as a JSON import has them. */
type Wide<T> = T extends string ? string : T extends (infer Item)[] ? Wide<Item>[] : T extends object ? { [Key in keyof T]: Wide<T[Key]> } : T;

/** Compiles only where the example has every field that the page relies on, of the right kind, and none that the page does not know. */
function reads<T>() {
  return <Example extends Wide<T>>(example: Example & Record<Exclude<keyof Example, keyof T>, never>): Example => example;
}

it('has the fields that the page reads', () => {
  const read = [
    reads<Api.AccountInfo>()(accountInfo),
    reads<Api.ApiKeyInfo>()(apiKeyInfo),
    reads<Api.CreateKeyResponse>()(createKeyResponse),
    reads<Api.SessionInfo>()(sessionInfo),
    reads<Api.InvitationInfo>()(invitationInfo),
    reads<Api.InvitationResponse>()(invitationResponse),
    reads<Api.ServerStatus>()(statusInfo),
    reads<Api.UsageRow>()(usageSum),
    reads<Api.UsageRow>()(usageSumPage),
    reads<Api.PullInfo>()(pullInfo),
    reads<Api.Chat>()(chat),
    reads<Api.ChatDocument>()(chatDocument),
    reads<{ chats: Api.ChatSummary[]; next?: string }>()(chatList),
    reads<Api.Message>()(message),
    reads<Api.ModelInfo>()(modelInfo),
    reads<Api.ModelInfo>()(modelInfoBase),
    reads<Api.RevisionInfo>()(revisionInfo),
    reads<Api.RevisionInfo>()(revisionInfoRollback),
    reads<Api.GenerateResponse>()(generateResponse),
    reads<Api.EvaluateResponse>()(evaluateResponse),
    reads<Api.TrainResponse>()(trainResponse),
    reads<Api.TrainResponse>()(trainResponseZero),
    reads<Api.InfoChunk>()(chunkInfo),
    reads<Api.DeltaChunk>()(chunkDelta),
    reads<Api.DeltaChunk>()(chunkReasoning),
    reads<Api.ProgressChunk>()(chunkProgress),
    reads<Api.ErrorChunk>()(chunkError),
    reads<Api.GenerateStop>()(chunkStopGenerate),
    reads<Api.TrainStop>()(chunkStopTrain),
    reads<Api.EvaluateStop>()(chunkStopEvaluate),
    reads<{ error: Api.ErrorBody }>()(error),
  ];
  for (const example of read) expect(Object.keys(example).length).toBeGreaterThan(0);
  expect(chunkStopCreate.type).toBe('stop');
});

const ROLES: readonly Api.Role[] = ['system', 'user', 'assistant'];
const STATUSES: readonly Api.ModelStatus[] = ['ready', 'loading', 'not_downloaded', 'training'];
const STOPS: readonly Api.StopReason[] = ['end_turn', 'max_tokens', 'stop_sequence'];
const PULLS: readonly Api.PullInfo['state'][] = ['running', 'checking', 'done', 'failed', 'stopped'];

it('has values that the page knows', () => {
  expect(ROLES).toContain(message.role);
  expect(STATUSES).toContain(modelInfo.status);
  expect(STATUSES).toContain(modelInfoBase.status);
  expect(STOPS).toContain(generateResponse.stop_reason);
  expect(STOPS).toContain(chunkStopGenerate.stop_reason);
  expect(PULLS).toContain(pullInfo.state);
  for (const node of chat.nodes) expect(ROLES.slice(1)).toContain(node.role);
  for (const row of [usageSum, usageSumPage]) expect(['generate', 'train', 'evaluate']).toContain(row.kind);
});

it('reads every kind of line', async () => {
  const lines = [chunkInfo, chunkDelta, chunkDeltaTop, chunkReasoning, chunkProgress, chunkStopGenerate, chunkStopTrain, chunkStopEvaluate, chunkStopCreate, chunkError];
  const { body } = new Response(lines.map((line) => JSON.stringify(line)).join('\n'));
  const types = [];
  for await (const chunk of objects<Api.Chunk>(body as ReadableStream<Uint8Array>)) types.push(chunk.type);
  expect(types).toEqual(['info', 'delta', 'delta', 'delta', 'progress', 'stop', 'stop', 'stop', 'stop', 'error']);
});

it('leaves out no answer of the server', () => {
  // What the page sends, confirmations whose words alone it shows, and another dialect.
  const unread = /^openai_|_request|_minimal|_batch|^delete_model_response|^deleted_|^revoke_key_response|^sign_out_response|^chunk_progress_within_step/;
  const all = readdirSync(join(import.meta.dirname, '../../../../crates/wire/golden')).filter((name) => !unread.test(name));
  // As many as are imported above.
  expect(all).toHaveLength(33);
});
