type Outcome<T> = Failure | T


/**
 * Which binding artifact the generated loader actually loaded: `'native'` for
 * a native addon, otherwise the `platformArchABI` of the WASI flavor. Every
 * flavor napi-rs can build is listed, because `NAPI_RS_NATIVE_LIBRARY_PATH`
 * can point the loader at a WASI artifact this package does not build itself.
 */
export declare const __napiBindingTarget: 'native' | 'wasm32-wasi' | 'wasm32-wasip1'

/** One answer without its id lists; see `readEvent`. */
export declare class NativeAnswer {
  /** The JSON with null where the lists were. */
  get json(): string
  /** Takes the prompt's ids out, once. */
  takePrompt(): NativePrompt | null
  /** Takes the ids of each choice out, once. */
  takeChoices(): Array<Uint32Array | undefined | null>
}

/** The record of a turn. */
export declare class NativeArtifact {
  info(): Outcome<NativeArtifactInfo>
  /** What it adds to its parent, as bytes to be kept. */
  record(): Promise<Failure | Buffer>
  /** The answer's message as JSON. */
  answer(): string
}

/** Cancels calls it was given to, before and between their stages. */
export declare class NativeCancel {
  constructor()
  cancel(): void
}

/** Decodes ids as they arrive; see `Model.decodeStream`. */
export declare class NativeDecodeStream {
  push(ids: Uint32Array): Outcome<string>
  finish(): Outcome<string>
}

/** A handle to a loaded model. */
export declare class NativeModel {
  /** Loads a model on a thread of its own. */
  static load(source: NativeSource): Promise<Failure | NativeModel>
  info(): Outcome<NativeInfo>
  render(body: Buffer, options: NativeRender, previous?: NativePrompt | undefined | null, cancel?: NativeCancel | undefined | null): Promise<Failure | NativePrompt>
  renderText(body: Buffer, options: NativeRender, cancel?: NativeCancel | undefined | null): Promise<Failure | string>
  encode(text: string, recognize: boolean, cancel?: NativeCancel | undefined | null): Promise<Failure | Uint32Array>
  decode(ids: Uint32Array, skipSpecial: boolean): Outcome<string>
  decodePrompt(prompt: NativePrompt, skipSpecial: boolean): Outcome<string>
  decodeStream(skipSpecial: boolean): Outcome<NativeDecodeStream>
  tokenToId(token: string): Outcome<number | undefined | null>
  idToToken(id: number): Outcome<string | undefined | null>
  /** Ends the pool and lets go of the model; calls under way still answer. */
  close(): void
}

/** A planned turn. */
export declare class NativePlan {
  info(): NativePlanInfo
  prompt(): NativePrompt | null
  certificate(): NativeCertificate | null
  /** Checks a certificate against this plan; null where it holds. */
  check(certificate: NativeCertificate, tenant: string, nowMs: number): Outcome<NativeRefusal | undefined | null>
  /**
   * Compares the prompt with the full render: null where they are one, else
   * the plan to send instead.
   */
  shadowCheck(cancel?: NativeCancel | undefined | null): Promise<Failure | NativePlan | null>
  /** This turn rendered whole, for a reason. */
  rendered(reason: string, cancel?: NativeCancel | undefined | null): Promise<Failure | NativePlan>
  /** All messages as a JSON list. */
  messagesJson(): Outcome<string>
  /** The members of the request that can change a prompt, as a JSON object. */
  membersJson(): string
  /** Its other members, as a JSON object. */
  othersJson(): string
  /** The messages of a whole request as they came, as a JSON list. */
  sentMessagesJson(): string
  spans(): Array<NativeSpan>
  /** The record of this turn with its answer. */
  commit(message: string, sampled?: Uint32Array | undefined | null): Outcome<NativeArtifact>
}

/** A handle to a prompt. */
export declare class NativePrompt {
  /**
   * The hashes of the full blocks, one behind the other: at once where little
   * is to be hashed, else off the event loop.
   */
  blockHashes(options: NativeBlockHashOptions): Failure | Buffer | Promise<Failure | Buffer>
  static fromIds(ids: Uint32Array): NativePrompt
  continued(keep: number, ids: Uint32Array): Outcome<NativePrompt>
  /** [length, reused] */
  lengths(): Outcome<[number, number]>
  tokenIds(): Outcome<Uint32Array>
  boundaries(): Outcome<Uint32Array>
  fingerprint(tokens: number): Outcome<string>
  hasPrefix(fingerprint: string, tokens: number): Outcome<boolean>
  diff(later: NativePrompt): Outcome<NativeDiff>
  equals(other: NativePrompt): Outcome<boolean>
  /** `before`, the ids from `from` on as a JSON array, and `after`, as one buffer. */
  writeJson(before: string | Uint8Array, after: string | Uint8Array, from?: number | undefined | null): Outcome<Buffer>
  /** BLAKE3 over the first `tokens` ids in hexadecimal. */
  hash(tokens: number): Outcome<string>
  /**
   * What `writeIds` of a rendering wrote, once: `ROOM_BEFORE` bytes, the ids
   * as a JSON array, `ROOM_AFTER` bytes.
   */
  takeWritten(): Buffer | null
  /** As `writeJson`, off the event loop. */
  writeJsonAside(before: string, after: string): Promise<Failure | Buffer>
  /** Heap bytes of the whole prompt, what it shares included. */
  bytes(): Outcome<number>
  /** Lets go of the ids now rather than at the next collection. */
  close(): void
}

/** A planner for the conversations of a model. */
export declare class NativeSeam {
  /** A planner on the pool of `model`. */
  static on(model: NativeModel, options: NativeSeamOptions): Outcome<NativeSeam>
  /** Certifies the usual classes. */
  warmUp(unixMillis: number, utcOffsetMinutes: number): Promise<Failure | null>
  /** Reads a whole request. */
  read(body: Buffer): Promise<Failure | NativeTurn>
  /**
   * Plans where that takes no longer than waking a thread of the pool; else
   * gives null.
   */
  planAside(turn: NativeTurn, found: NativeArtifact, count: number, options: NativePlanOptions): Promise<Failure | NativePlan | null>
  /** Reads messages to append, and plans as [`Self::plan_aside`] does. */
  appendAside(messages: Buffer, members: Buffer | undefined | null, found: NativeArtifact, options: NativePlanOptions): Promise<Failure | NativePlan | null>
  /**
   * The artifact `id` from its record and those it grew from, or from those
   * behind `known`.
   */
  restore(records: Buffer, known: NativeArtifact | undefined | null, tenant: string, id: string): Promise<Failure | NativeArtifact>
  /** Plans on the pool. */
  plan(turn: NativeTurn, append: boolean, found: NativeArtifact | undefined | null, count: number, previous: NativeArtifact | undefined | null, options: NativePlanOptions, cancel?: NativeCancel | undefined | null): Promise<Failure | NativePlan>
}

/** A file of records, with the one thread that reads and writes it. */
export declare class NativeSqlite {
  /** Opens a file on a thread of its own. */
  static open(path: string, options: NativeSqliteOptions, key?: Buffer | undefined | null): Promise<Failure | NativeSqlite>
  load(tenant: string, conversation: string, known: string | undefined | null, now: number): Promise<Failure | NativeStand | null>
  /** `digests` are 64 hexadecimal digits each. */
  find(tenant: string, digests: string, known: string | undefined | null, now: number): Promise<Failure | NativeStored | null>
  /** See `Commit`. */
  commit(artifact: NativeArtifact, conversation: string | undefined | null, project: string, expires: number, version: number, toolRound: boolean, turn: string, now: number): Promise<Failure | boolean>
  abandon(tenant: string, conversation: string): Promise<Failure | boolean>
  list(tenant: string, project: string | undefined | null, after: string | undefined | null, limit: number): Promise<Failure | Array<NativeListed>>
  moveTo(tenant: string, conversation: string, project: string): Promise<Failure | boolean>
  delete(tenant: string, conversation: string): Promise<Failure | boolean>
  deleteTenant(tenant: string): Promise<Failure | number>
  expire(now: number): Promise<Failure | number>
  salt(tenant: string, domain: string, fresh: string): Promise<Failure | string>
  counts(): Promise<Failure | NativeCounts>
  tenants(): Promise<Failure | Array<string>>
  verify(): Promise<Failure | NativeVerified>
  backUp(path: string): Promise<Failure | null>
  /** Finishes what is under way, then lets go of the file and the thread. */
  close(): Promise<Failure | null>
}

/** A turn that was read but not parsed. */
export declare class NativeTurn {
  /** Reads messages to append, and members of their request, at once. */
  static append(messages: Buffer, members?: Buffer | undefined | null): Outcome<NativeTurn>
  /** Reads a whole request at once. */
  static request(body: Buffer): Outcome<NativeTurn>
  /** How many messages the longest histories that may be known have. */
  candidateCounts(): Uint32Array
  /** Their digests in hexadecimal, 64 digits each. */
  candidateDigests(): string
}

/** Encryption with a caller's key; see `Vault`. */
export declare class NativeVault {
  /** A vault of a key of 32 bytes. */
  static of(key: Buffer): Outcome<NativeVault>
  seal(tenant: string, bytes: Buffer): Outcome<Buffer>
  /** Opens what was sealed, one after another. */
  open(tenant: string, sealed: Buffer): Outcome<Buffer>
  /**
   * A digest of 64 hexadecimal digits, as one that tells nothing without the
   * key.
   */
  blind(tenant: string, digest: string): string
}

/** A failed call. */
export interface Failure {
  /** The stable code, `PS_...`. */
  failed: string
  /** The message for people. */
  message: string
  /** What caused it. */
  cause?: string
}

/** What a record is like; see `Artifact`. */
export interface NativeArtifactInfo {
  id: string
  parent?: string
  digest: string
  bytes: number
  allBytes: number
  messages: number
  tokens?: number
}

/** What the hashes are made with; see `Prompt.blockHashes`. */
export interface NativeBlockHashOptions {
  sha256: boolean
  blockSize: number
  hashSeed?: string
  cacheSalt?: string
  loraName?: string
  loraPath?: string
  tagged: boolean
}

/** An added token and what the boundary proof says of it. */
export interface NativeBoundary {
  id: number
  content: string
  safe: boolean
  reason?: string
  because?: string
}

/** See `Certificate`. */
export interface NativeCertificate {
  prefixId: string
  prefixTokens: number
  boundary: number
  appendHash: string
  appendTokens: number
  combinedId: string
  combinedTokens: number
  environment: Array<NativeFieldDigest>
  tenant: string
  expires: number
}

/** See `SqliteStats`. */
export interface NativeCounts {
  conversations: number
  artifacts: number
  bytes: number
  fileBytes: number
  hits: number
  misses: number
  evictions: number
}

/** How two prompts differ; see `Prompt.diff`. */
export interface NativeDiff {
  commonPrefix: number
  boundary: number
  removed: number
  appended: number
}

/** A field of the environment fingerprint. */
export interface NativeFieldDigest {
  field: string
  digest: string
}

/** What a model is like; see `Model.info`. */
export interface NativeInfo {
  engine: string
  fallback?: string
  vocabSize: number
  idLimit: number
  maxModelLength?: number
  stopTokenIds: Array<number>
  hasChatTemplate: boolean
  boundaries: Array<NativeBoundary>
}

/** See `ConversationInfo`. */
export interface NativeListed {
  conversation: string
  project: string
  version: number
  messages?: number
  tokens?: number
  toolRound: boolean
  updated: number
}

/** What a plan is like; see `Turn`. */
export interface NativePlanInfo {
  rung: string
  reason?: string
  field?: string
  fromToken?: number
  prefixLength: number
  promptLength?: number
  seam?: number
  drift: string
  wantsCheck: boolean
}

/** How to plan one turn; see `Seam.prepare`. */
export interface NativePlanOptions {
  unixMillis: number
  utcOffsetMinutes: number
  expires: number
  tenant: string
  lora: string
  /** The cache salt of a request that has none; empty for none. */
  salt: string
  /** Why nothing was found, by its name; empty where something was. */
  missing: string
  /** Why the server is to render, by its name; empty where it need not. */
  declined: string
}

/** Why a certificate does not hold. */
export interface NativeRefusal {
  reason: string
  field?: string
}

/** How to render; see `Model.render`. */
export interface NativeRender {
  unixMillis: number
  utcOffsetMinutes: number
  /** Write the ids as JSON too, for `NativePrompt.takeWritten`. */
  writeIds?: boolean
}

/** How a Seam plans all its turns; see `SeamOptions`. */
export interface NativeSeamOptions {
  shadowFirst: number
  shadowEvery: number
  followClock: boolean
  sampled: boolean
  restoreReasoning: boolean
  revision: string
}

/** Where a model is and how to load it; see `Model.load`. */
export interface NativeSource {
  /** A folder, or a name in the Hugging Face cache. */
  name?: string
  tokenizer?: string
  tokenizerConfig?: string
  chatTemplateFile?: string
  config?: string
  generationConfig?: string
  /** A template's source. */
  chatTemplate?: string
  maxModelLength?: number
  maxBytes: number
  threads: number
  queueLimit: number
}

/** Ids that stand for the history form of a message. */
export interface NativeSpan {
  start: number
  end: number
  rendered: number
}

/** See `SqliteStoreOptions`. */
export interface NativeSqliteOptions {
  full: boolean
  /** None for no bound. */
  maxBytes?: number
  readOnly: boolean
}

/** See `Checkpoint`. */
export interface NativeStand {
  version: number
  tip?: NativeStored
}

/** See `Entry`. */
export interface NativeStored {
  id: string
  expires: number
  records: Buffer
}

/** See `SqliteStore.verify`. */
export interface NativeVerified {
  artifacts: number
  damaged: number
  orphans: number
  file: Array<string>
}

/** Takes the id lists out of one event or answer of a server. */
export declare function readEvent(data: Buffer): Outcome<NativeAnswer>

/** Bytes of room after them. */
export declare const ROOM_AFTER: number

/** Bytes of room before the ids that `takeWritten` gives. */
export declare const ROOM_BEFORE: number
