BEGIN TRANSACTION;
CREATE TABLE annotations (
	project_id VARCHAR NOT NULL, 
	id INTEGER NOT NULL, 
	task_id INTEGER NOT NULL, 
	result JSON NOT NULL, 
	updated_at VARCHAR NOT NULL, 
	PRIMARY KEY (project_id, id)
);
INSERT INTO "annotations" VALUES('7',12,3,'[{"value": 1}]','2026-11-22T10:00:00Z');
INSERT INTO "annotations" VALUES('7',13,4,'[]','2026-11-22T10:00:00Z');
CREATE TABLE jobs (
	id VARCHAR NOT NULL, 
	kind VARCHAR NOT NULL, 
	"key" VARCHAR NOT NULL, 
	project_id VARCHAR NOT NULL, 
	arguments JSON NOT NULL, 
	priority INTEGER NOT NULL, 
	status VARCHAR NOT NULL, 
	progress DOUBLE NOT NULL, 
	worker VARCHAR, 
	attempts INTEGER NOT NULL, 
	created_at DATETIME NOT NULL, 
	started_at DATETIME, 
	ended_at DATETIME, 
	result JSON, 
	error TEXT, 
	PRIMARY KEY (id)
);
INSERT INTO "jobs" VALUES('31ada21e0815425b8899e93bdf1561b7','train','train:7','7','{}',10,'started',0.0,'w',1,'2026-11-24 18:48:08.016535','2026-11-24 18:48:08.032927',NULL,NULL,NULL);
INSERT INTO "jobs" VALUES('cb4f4371f78a4471a2e06ce36e6e469c','train','train:7','7','{}',10,'queued',0.0,NULL,0,'2026-11-24 18:48:08.044991',NULL,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES('06c773bdd9284daf80d454c532486756','prepare','prepare:7:3','7','{"task": {"id": 3, "data": {}}}',0,'queued',0.0,NULL,0,'2026-11-24 18:48:08.053991',NULL,NULL,NULL,NULL);
INSERT INTO "jobs" VALUES('19f80aa7886b48d484ac47ff5bf00293','deliver','deliver:7:4','7','{"task": {"id": 4, "data": {}}}',20,'finished',1.0,'w',1,'2026-11-24 18:48:08.060800','2026-11-24 18:48:08.071368','2026-11-24 18:48:08.079399','{"model_version": "x"}',NULL);
CREATE TABLE model_values (
	project_id VARCHAR NOT NULL, 
	"key" VARCHAR NOT NULL, 
	value TEXT NOT NULL, 
	PRIMARY KEY (project_id, "key")
);
INSERT INTO "model_values" VALUES('7','trainings','5');
CREATE TABLE notes (
	project_id VARCHAR NOT NULL, 
	task_id INTEGER NOT NULL, 
	text VARCHAR(300) NOT NULL, 
	PRIMARY KEY (project_id, task_id, text)
);
INSERT INTO "notes" VALUES('7',3,'a note');
CREATE TABLE projects (
	id VARCHAR NOT NULL, 
	label_config TEXT NOT NULL, 
	hostname VARCHAR, 
	access_token VARCHAR, 
	revision INTEGER NOT NULL, 
	trained_revision INTEGER NOT NULL, 
	from_scratch BOOLEAN NOT NULL, 
	last_event JSON, 
	retry_at DATETIME, 
	created_at DATETIME NOT NULL, 
	PRIMARY KEY (id)
);
INSERT INTO "projects" VALUES('7','<View/>','http://ls','token',3,1,1,'{"event": "ANNOTATION_CREATED", "data": {"annotation": {"id": 13}}}',NULL,'2026-11-24 18:48:07.909456');
CREATE TABLE tasks (
	project_id VARCHAR NOT NULL, 
	id INTEGER NOT NULL, 
	data JSON NOT NULL, 
	PRIMARY KEY (project_id, id)
);
INSERT INTO "tasks" VALUES('7',3,'{"video": "/a.mp4"}');
INSERT INTO "tasks" VALUES('7',4,'{"video": "/b.mp4"}');
CREATE TABLE trainings (
	id INTEGER NOT NULL, 
	project_id VARCHAR NOT NULL, 
	revision INTEGER NOT NULL, 
	started_at DATETIME NOT NULL, 
	seconds DOUBLE, 
	annotated_tasks INTEGER NOT NULL, 
	status VARCHAR NOT NULL, 
	model_version VARCHAR, 
	metrics JSON, 
	error TEXT, 
	PRIMARY KEY (id)
);
INSERT INTO "trainings" VALUES(1,'7',1,'2026-11-24 18:48:07.980629',1.5,1,'published','enc-v1','{"tl": {"tasks": 1, "honest": {"frames": {"per_label": {"Ball": {"f1": 0.5, "support": 9}}}}}}',NULL);
INSERT INTO "trainings" VALUES(2,'7',2,'2026-11-24 18:48:08.009076',NULL,1,'running',NULL,NULL,NULL);
CREATE TABLE workers (
	id VARCHAR NOT NULL, 
	seen_at DATETIME NOT NULL, 
	PRIMARY KEY (id)
);
CREATE INDEX ix_annotations_task_id ON annotations (task_id);
CREATE INDEX ix_trainings_project_id ON trainings (project_id);
CREATE INDEX ix_jobs_key ON jobs ("key");
CREATE INDEX ix_jobs_status ON jobs (status);
COMMIT;